"""Service keys: issued by admins to external applications."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import after_commit, utcnow
from app.core.exceptions import ConflictError, NotFoundError
from app.core.keys import KeyKind, new_key, prefix_of
from app.core.tokens import fingerprint
from app.models import ServiceKey
from app.schemas.apikey import KeyCreated
from app.schemas.servicekey import ServiceKeyCreate
from app.services import audit
from app.services.apikey import facts, shown_once
from app.services.principal import Principals

MOST_KEYS = 1000
_LIVE = ServiceKey.revoked_at.is_(None)


async def create(
    session: AsyncSession, actor: audit.Actor, form: ServiceKeyCreate
) -> KeyCreated:
    """Raises ConflictError for one key too many."""
    held = await session.scalar(select(func.count(ServiceKey.id)).where(_LIVE))
    if held is None or held >= MOST_KEYS:
        raise ConflictError(
            f"There can be at most {MOST_KEYS} service keys: revoke one that is not "
            "used.",
            code="too_many_keys",
        )
    text = new_key(KeyKind.SERVICE)
    key = ServiceKey(
        prefix=prefix_of(text), key_hash=fingerprint(text), **form.model_dump()
    )
    session.add(key)
    await session.flush()
    target = ("service_key", key.id)
    await audit.record(
        session, actor, "service_key.create", target=target, after=facts(key)
    )
    return shown_once(key, text)


async def listing(session: AsyncSession) -> Sequence[ServiceKey]:
    """Those that are not revoked, the newest first."""
    keys = await session.scalars(
        select(ServiceKey).where(_LIVE).order_by(ServiceKey.id.desc())
    )
    return keys.all()


async def revoke(
    session: AsyncSession, actor: audit.Actor, principals: Principals, key_id: UUID
) -> None:
    """End it at once; what was reported with it stays."""
    key = await session.scalar(
        select(ServiceKey).where(ServiceKey.id == key_id, _LIVE).with_for_update()
    )
    if key is None:
        raise NotFoundError("There is no service key with this id.")
    key.revoked_at = utcnow()
    after_commit(session, lambda: principals.forget(key_id))
    target = ("service_key", key_id)
    await audit.record(
        session, actor, "service_key.revoke", target=target, before=facts(key)
    )
