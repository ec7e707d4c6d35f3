"""The rows that a turn begins with, and the rule that two do not begin in one place."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value
from uuid_utils.compat import uuid7

from app.core.database import changed_rows, utcnow
from app.core.exceptions import ConflictError, NotFoundError
from app.models import Chat, Message
from app.services.chat import search

_BROKEN_OFF = ("interrupted", "stopped", "error")


class TurnInProgressError(ConflictError):
    code = "turn_in_progress"

    def __init__(self, message_id: UUID) -> None:
        super().__init__(
            "A reply is being written here: wait for its end, or stop it.",
            extra={"message_id": str(message_id)},
        )


def new_question(
    chat: Chat, blocks: list[dict[str, Any]], *, above: Sequence[Message]
) -> Message:
    if above and above[0].status == "streaming":
        raise TurnInProgressError(above[0].id)
    return _new(
        chat,
        role="user",
        status="complete",
        parent_id=above[0].id if above else None,
        content=blocks,
    )


def new_reply(
    chat: Chat, *, parent_id: UUID, model: str, lease_expires_at: datetime
) -> Message:
    """A reply that is to be written."""
    return _new(
        chat,
        role="assistant",
        status="streaming",
        parent_id=parent_id,
        content=[],
        model=model,
        lease_expires_at=lease_expires_at,
    )


def _new(chat: Chat, **fields: Any) -> Message:
    # With all that has a default: what has the same columns is stored together.
    return Message(
        id=uuid7(),
        chat_id=chat.id,
        citations=[],
        credits=0,
        attempt=0,
        rating=0,
        created_at=utcnow(),
        **fields,
    )


async def add(
    session: AsyncSession, question: Message | None, reply: Message, *, siblings: str
) -> None:
    """Store a reply beside its `siblings`, and the question if that is new."""
    session.add_all([question, reply] if question else [reply])
    try:
        await session.flush()
    except IntegrityError as error:
        raise NotFoundError(
            "The message that yours was to follow has been deleted meanwhile."
        ) from error
    set_committed_value(reply, "siblings", f"{siblings} {reply.id}")
    if question is not None:
        await search.index_messages(session, [question])


async def move_leaf(
    session: AsyncSession, chat: Chat, to: UUID, *, anywhere: bool = False
) -> None:
    """Move the chat on; of two that saw the same leaf, the second is refused.

    Unless the move is right from `anywhere`.
    """
    here = update(Chat).where(Chat.id == chat.id)
    if not anywhere:
        here = here.where(Chat.leaf_id.is_not_distinct_from(chat.leaf_id))
    result = await session.execute(here.values(leaf_id=to, updated_at=utcnow()))
    if changed_rows(result) == 0 and anywhere:
        raise NotFoundError("There is no chat with this id.")
    if changed_rows(result) == 0:
        raise ConflictError(
            "Another message was added to this chat meanwhile: read it, then send "
            "yours again."
        )


def require_continuable(message: Message, chat: Chat) -> None:
    if message.status == "streaming":
        raise TurnInProgressError(message.id)
    cut_off = message.stop_reason == "max_tokens"
    if message.role != "assistant" or not (message.status in _BROKEN_OFF or cut_off):
        raise ConflictError(
            "There is nothing to continue: this message came to its end.",
            code="nothing_to_continue",
        )
    if chat.leaf_id != message.id:
        raise ConflictError(
            "Only the chat's newest message can be continued.",
            code="nothing_to_continue",
        )
