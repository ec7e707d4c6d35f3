"""Events: each part of the transaction that does the thing it tells of.

So neither exists without the other. It joins the chain in the last moment before the
commit.
"""

from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import or_, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import before_commit, utcnow
from app.models import AuditEvent
from app.services.audit import chain

ActorKind = Literal["user", "staff", "admin", "service", "system"]
_PENDING = "audit"


@dataclass(frozen=True, slots=True)
class Actor:
    kind: ActorKind
    id: UUID | None = None
    ip: str | None = None


SYSTEM = Actor("system")
"""Who does what nobody asked for: schedules, and the command line."""


async def record(
    session: AsyncSession,
    actor: Actor,
    action: str,
    *,
    target: tuple[str, UUID] | None = None,
    before: dict[str, Any] | None = None,
    after: dict[str, Any] | None = None,
) -> None:
    """Have it known that `actor` did `action` ("noun.verb") to `target` (kind, id).

    `before` and `after` tell what changed, as JSON values; no secret belongs there.
    Stored if and only if this unit of work is.
    """
    details = {"ip": actor.ip, "before": before, "after": after}
    kind, target_id = target or (None, None)
    event = {
        "created_at": utcnow(),
        "actor_kind": actor.kind,
        "actor_id": actor.id,
        "action": action,
        "target_kind": kind,
        "target_id": target_id,
        # As it will be read again: the hash must come out the same.
        "details": orjson.loads(
            orjson.dumps(
                {name: value for name, value in details.items() if value is not None},
                default=str,
            )
        ),
    }
    pending: list[dict[str, Any]] = session.info.setdefault(_PENDING, [])
    if not pending:
        before_commit(session, _append)
    pending.append(event)


async def forget(session: AsyncSession, person_id: UUID) -> None:
    """Empty the details of all events by or about a person who is being erased.

    The chain covers their hashes and still verifies, provided that an event
    `user.erase` about this person is recorded, too.
    """
    await session.execute(
        update(AuditEvent)
        .where(or_(AuditEvent.actor_id == person_id, AuditEvent.target_id == person_id))
        .values(details=None)
    )


async def _append(session: AsyncSession) -> None:
    await chain.append(session, session.info.pop(_PENDING))
