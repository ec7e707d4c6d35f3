"""Events, for the desk to look through."""

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import FieldError, ValidationFailedError
from app.models import AuditEvent
from app.schemas.audit import AuditFilter
from app.services.paging import Paging


async def listing(
    session: AsyncSession, at: Paging, wanted: AuditFilter
) -> tuple[Sequence[AuditEvent], str | None]:
    """A page, the newest first, and the cursor of the next one: its last number."""
    statement = select(AuditEvent)
    if wanted.action is not None:
        action = AuditEvent.action
        of_noun = action.startswith(f"{wanted.action}.", autoescape=True)
        exact = "." in wanted.action
        statement = statement.where(action == wanted.action if exact else of_noun)
    if wanted.actor_id is not None:
        statement = statement.where(AuditEvent.actor_id == wanted.actor_id)
    if wanted.target_id is not None:
        statement = statement.where(AuditEvent.target_id == wanted.target_id)
    if wanted.since is not None:
        statement = statement.where(AuditEvent.created_at >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(AuditEvent.created_at < wanted.until)
    if at.cursor is not None:
        statement = statement.where(AuditEvent.seq < _seq(at.cursor))
    found = await session.scalars(
        statement.order_by(AuditEvent.seq.desc()).limit(at.limit + 1).offset(at.offset)
    )
    rows = found.all()
    if len(rows) <= at.limit:
        return rows, None
    return rows[: at.limit], str(rows[at.limit - 1].seq)


def _seq(cursor: str) -> int:
    if cursor.isascii() and cursor.isdigit() and len(cursor) <= 18:  # noqa: PLR2004 - what a BIGINT holds
        return int(cursor)
    message = "is no cursor of this list: send a `next_cursor` unchanged"
    raise ValidationFailedError(
        f"`cursor` {message}.", errors=[FieldError(path="cursor", message=message)]
    )
