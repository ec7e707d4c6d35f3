"""API keys: issued once, stored as a hash, ended at once."""

from collections.abc import Sequence
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import after_commit, utcnow
from app.core.exceptions import ConflictError, NotFoundError
from app.core.keys import KeyKind, new_key, prefix_of
from app.core.tokens import fingerprint
from app.models import ApiKey
from app.schemas.apikey import ApiKeyCreate, ApiKeyUpdate, KeyCreated, KeyRead
from app.services.authorization import Principal, owned, require, visible_to
from app.services.principal import Principals

MOST_KEYS = 100
"""Of one user."""


async def create(
    session: AsyncSession, principal: Principal, form: ApiKeyCreate
) -> KeyCreated:
    """Raises ConflictError for one key too many."""
    held = await session.scalar(
        select(func.count()).where(
            owned(ApiKey, principal.user_id), ApiKey.revoked_at.is_(None)
        )
    )
    if held is None or held >= MOST_KEYS:
        raise ConflictError(
            f"There can be at most {MOST_KEYS} API keys: delete one that is not used.",
            code="too_many_keys",
        )
    text = new_key(KeyKind.USER)
    key = ApiKey(
        user_id=principal.user_id,
        prefix=prefix_of(text),
        key_hash=fingerprint(text),
        **form.model_dump(),
    )
    session.add(key)
    await session.flush()
    return shown_once(key, text)


async def listing(session: AsyncSession, principal: Principal) -> Sequence[ApiKey]:
    """Those that are not revoked, the newest first."""
    keys = await session.scalars(
        visible_to(principal, ApiKey)
        .where(ApiKey.revoked_at.is_(None))
        .order_by(ApiKey.id.desc())
    )
    return keys.all()


async def change(
    session: AsyncSession,
    principal: Principal,
    principals: Principals,
    key_id: UUID,
    form: ApiKeyUpdate,
) -> ApiKey:
    key = await _own(session, principal, key_id)
    changes = form.model_dump(exclude_unset=True)
    for field, value in changes.items():
        if value is not None or field == "expires_at":
            setattr(key, field, value)
    await session.flush()
    after_commit(session, lambda: principals.forget(key.id))
    return key


async def rotate(
    session: AsyncSession, principal: Principal, principals: Principals, key_id: UUID
) -> KeyCreated:
    """A new key in the place of the old one, which ends at once."""
    key = await _own(session, principal, key_id)
    text = new_key(KeyKind.USER)
    key.prefix, key.key_hash = prefix_of(text), fingerprint(text)
    key.last_used_at = None
    await session.flush()
    after_commit(session, lambda: principals.forget(key.id))
    return shown_once(key, text)


async def revoke(
    session: AsyncSession, principal: Principal, principals: Principals, key_id: UUID
) -> None:
    key = await _own(session, principal, key_id)
    key.revoked_at = utcnow()
    after_commit(session, lambda: principals.forget(key.id))


def shown_once(key: object, text: str) -> KeyCreated:
    read = KeyRead.model_validate(key)
    return KeyCreated(**read.model_dump(), key=text)


async def _own(session: AsyncSession, principal: Principal, key_id: UUID) -> ApiKey:
    key = await require(session, principal, ApiKey, key_id, lock=True)
    if key.revoked_at is not None:
        raise NotFoundError("There is no API key with this id.")
    return key
