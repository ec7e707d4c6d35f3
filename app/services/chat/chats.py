import base64
import binascii
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import after_commit
from app.core.exceptions import FieldError, ValidationFailedError
from app.integrations.llm.registry import Providers
from app.models import Chat
from app.schemas.chat import ChatCreate, ChatUpdate
from app.services.authorization import Principal, require, visible_to
from app.services.chat.turns import Turns


async def create(
    session: AsyncSession, principal: Principal, providers: Providers, form: ChatCreate
) -> Chat:
    """Raises BadRequestError for a model that is not on offer."""
    model = form.model or await providers.default_name()
    await providers.resolve(model)
    chat = Chat(
        user_id=principal.user_id,
        title=form.title,
        model=model,
        system_prompt=form.system_prompt,
    )
    session.add(chat)
    await session.flush()
    return chat


async def listing(
    session: AsyncSession,
    principal: Principal,
    *,
    archived: bool,
    limit: int,
    cursor: str | None,
    offset: int,
) -> tuple[Sequence[Chat], str | None]:
    """A page, last changed first, and the cursor of the next one."""
    statement = (
        visible_to(principal, Chat)
        .where(Chat.archived == archived)
        .order_by(Chat.updated_at.desc(), Chat.id.desc())
        .limit(limit + 1)
        .offset(offset)
    )
    if cursor is not None:
        statement = statement.where(
            tuple_(Chat.updated_at, Chat.id) < _position(cursor)
        )
    rows = (await session.scalars(statement)).all()
    page = rows[:limit]
    return page, _cursor(page[-1]) if len(rows) > limit else None


async def change(
    session: AsyncSession,
    principal: Principal,
    providers: Providers,
    chat_id: UUID,
    form: ChatUpdate,
) -> Chat:
    if form.model is not None:
        await providers.resolve(form.model)
    chat = await require(session, principal, Chat, chat_id)
    changes = form.model_dump(exclude_unset=True)
    for required in ("model", "archived"):
        if changes.get(required, ...) is None:
            changes.pop(required)
    for field, value in changes.items():
        setattr(chat, field, value)
    await session.flush()
    return chat


async def get(session: AsyncSession, principal: Principal, chat_id: UUID) -> Chat:
    return await require(session, principal, Chat, chat_id)


async def delete(
    session: AsyncSession, principal: Principal, turns: Turns, chat_id: UUID
) -> None:
    """Its messages go with it, and a reply that is being written ends."""
    await session.delete(await require(session, principal, Chat, chat_id))
    after_commit(session, lambda: turns.abandon(chat_id))


def _cursor(chat: Chat) -> str:
    text = f"{chat.updated_at.isoformat()} {chat.id.hex}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _position(cursor: str) -> tuple[datetime, UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor.encode()).decode()
        time, _, row_id = text.partition(" ")
        # Overflows at the ends of the calendar, so here and not in the statement.
        return datetime.fromisoformat(time).astimezone(UTC), UUID(row_id)
    except (ValueError, OverflowError, binascii.Error) as error:
        message = "is no cursor of this list: send a `next_cursor` unchanged"
        raise ValidationFailedError(
            f"`cursor` {message}.", errors=[FieldError(path="cursor", message=message)]
        ) from error
