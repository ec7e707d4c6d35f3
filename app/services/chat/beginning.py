"""The rows that a turn begins with, and the rule that two do not begin in one place."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Uuid, bindparam, insert, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm.attributes import set_committed_value
from uuid_utils.compat import uuid7

from app.core.database import utcnow
from app.core.exceptions import ConflictError, NotFoundError
from app.core.statements import Script, Statement
from app.models import Chat, Message
from app.services.chat.history import ChatFacts, Said

_BROKEN_OFF = ("interrupted", "stopped", "error")


class TurnInProgressError(ConflictError):
    code = "turn_in_progress"

    def __init__(self, message_id: UUID) -> None:
        super().__init__(
            "A reply is being written here: wait for its end, or stop it.",
            extra={"message_id": str(message_id)},
        )


def new_question(blocks: list[dict[str, Any]], *, above: Sequence[Said]) -> Said:
    if above and above[0].status == "streaming":
        raise TurnInProgressError(above[0].id)
    parent_id = above[0].id if above else None
    return Said(uuid7(), parent_id, "user", "complete", blocks)


def new_reply(
    chat: ChatFacts,
    *,
    parent_id: UUID,
    model: str,
    siblings: str,
    lease_expires_at: datetime,
) -> Message:
    """A reply that is to be written beside its `siblings`."""
    # With all that has a default: it is stored as it is.
    reply = Message(
        id=uuid7(),
        role="assistant",
        status="streaming",
        parent_id=parent_id,
        content=[],
        model=model,
        lease_expires_at=lease_expires_at,
        **_new(chat),
    )
    set_committed_value(reply, "siblings", f"{siblings} {reply.id}")
    return reply


def _new(chat: ChatFacts) -> dict[str, Any]:
    """What all new messages of a chat have in common."""
    return {
        "chat_id": chat.id,
        "citations": [],
        "credits": 0,
        "billed": 0,
        "attempt": 0,
        "rating": 0,
        "created_at": utcnow(),
    }


def begin(
    chat: ChatFacts, question: Said | None, reply: Message, *, anywhere: bool
) -> Script[None]:
    """Store a reply, and the question if that is new, and move the chat on to it."""
    yield from move_leaf(chat, reply.id, anywhere=anywhere)
    try:
        if question is not None:
            yield _INSERT(**_row(chat, question))
        yield _INSERT(**{name: getattr(reply, name) for name in _COLUMNS})
    except IntegrityError as error:
        raise NotFoundError(
            "The message that yours was to follow has been deleted meanwhile."
        ) from error


def _row(chat: ChatFacts, question: Said) -> dict[str, Any]:
    return {
        **_EMPTY,
        **_new(chat),
        "id": question.id,
        "parent_id": question.parent_id,
        "role": question.role,
        "status": question.status,
        "content": question.content,
    }


def move_leaf(chat: ChatFacts, to: UUID, *, anywhere: bool = False) -> Script[None]:
    """Move the chat on; of two that saw the same leaf, the second is refused.

    Unless the move is right from `anywhere`.
    """
    known = {"chat": chat.id, "to": to, "now": utcnow()}
    if anywhere:
        moved = yield _MOVE(**known)
    else:
        moved = yield _MOVE_ON(**known, leaf=chat.leaf_id)
    if moved.rowcount == 0 and anywhere:
        raise NotFoundError("There is no chat with this id.")
    if moved.rowcount == 0:
        raise ConflictError(
            "Another message was added to this chat meanwhile: read it, then send "
            "yours again."
        )


def reopen(chat: ChatFacts, message: Message, changes: dict[str, Any]) -> Script[None]:
    """Store `changes` of a reply that is continued, unless another was faster."""
    yield from move_leaf(chat, message.id)
    reopened = yield _REOPEN(
        row=message.id,
        was_attempt=message.attempt,
        was_status=message.status,
        **changes,
    )
    if reopened.rowcount == 0:
        raise TurnInProgressError(message.id)
    for name, value in changes.items():
        setattr(message, name, value)


_COLUMNS = tuple(column.key for column in Message.__table__.columns)
_EMPTY = dict.fromkeys(_COLUMNS)
_INSERT = Statement(insert(Message.__table__))  # type: ignore[arg-type]  # a mapped class's Table
_HERE = (
    update(Chat.__table__)  # type: ignore[arg-type]  # the same
    .where(Chat.id == bindparam("chat"))
    .values(leaf_id=bindparam("to"), updated_at=bindparam("now"))
)
_MOVE = Statement(_HERE)
_MOVE_ON = Statement(
    _HERE.where(Chat.leaf_id.is_not_distinct_from(bindparam("leaf", type_=Uuid())))
)


_REOPENED = (
    "status", "attempt", "content", "resumed_from", "stop_reason", "error",
    "lease_expires_at",
)  # fmt: skip
_REOPEN = Statement(
    update(Message.__table__)  # type: ignore[arg-type]  # the same
    .where(
        Message.id == bindparam("row"),
        Message.attempt == bindparam("was_attempt"),
        Message.status == bindparam("was_status"),
    )
    .values({name: bindparam(name) for name in _REOPENED})
)


def require_continuable(message: Message, chat: ChatFacts) -> None:
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
