"""What a turn starts from: the chat, and the branch above the new message."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import (
    CTE,
    BindParameter,
    ColumnElement,
    Integer,
    Select,
    Subquery,
    Text,
    Uuid,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.orm import InstrumentedAttribute, aliased

from app.core.database import Database
from app.core.exceptions import NotFoundError
from app.core.statements import Statement
from app.integrations.llm.base import Block
from app.models import Chat, Message, MessageSummary
from app.services.authorization import owned

MOST = 500
"""Messages looked at for a context; a window fills long before."""

_MOST_CHARACTERS = 18_000_000
"""The same of their content as JSON, images and documents by their bytes among it.

A request may have 20 MB on Bedrock and 32 MB at Anthropic, whatever the window holds.
"""


@dataclass(frozen=True, slots=True)
class ChatFacts:
    """What of a chat its turns need."""

    id: UUID
    user_id: UUID
    project_id: UUID | None
    model: str
    title: str | None
    system_prompt: str | None
    temporary: bool
    leaf_id: UUID | None


class Said(NamedTuple):
    """A message as far as what follows it goes.

    `summary` tells of all up to it, itself included, where one has been written, and
    `summary_files` are the blocks by which these messages named files.
    """

    id: UUID
    parent_id: UUID | None
    role: str
    status: str
    content: Sequence[Block]
    summary: str | None = None
    summary_files: Sequence[Block] | None = None


async def read(
    database: Database,
    owner: UUID,
    chat_id: UUID,
    *,
    start: UUID | None,
    most: int = MOST,
) -> tuple[ChatFacts, list[Said]]:
    """The chat, and its messages from `start` (by default its leaf) up, nearest first.

    One statement. `start` is always among them; older ones while they can be sent, up
    to the first that has a summary.
    Raises NotFoundError for what is not there or not theirs.
    """
    known = {"owner": owner, "chat": chat_id, "most": most}
    if start is None:
        asked = _history(from_leaf=True)(**known)
    else:
        asked = _history(from_leaf=False)(**known, start=start)
    found = await database.run(asked, brief=True)
    if not found.rows:
        raise NotFoundError("There is no chat with this id.")
    first = found.rows[0]
    chat = ChatFacts(
        id=chat_id,
        user_id=owner,
        project_id=first["project_id"],
        model=first["chat_model"],
        title=first["title"],
        system_prompt=first["system_prompt"],
        temporary=first["temporary"],
        leaf_id=first["leaf_id"],
    )
    if first["id"] is None:  # the chat alone
        if start is not None:
            raise NotFoundError("There is no message with this `parent_id` here.")
        return chat, []
    return chat, [
        Said(
            row["id"],
            row["parent_id"],
            row["role"],
            row["status"],
            row["content"],
            row["summary"],
            row["summary_files"],
        )
        for row in found.rows
    ]


def unread(branch: Sequence[Said]) -> bool:
    """Whether the chat has more above than was looked at."""
    return branch[-1].parent_id is not None


def size(message: type[Message]) -> ColumnElement[int]:
    """The characters of its content, as JSON."""
    return func.length(cast(message.content, Text))


@cache
def _history(*, from_leaf: bool) -> Statement:
    chat = (
        select(*_CHAT)
        .where(
            owned(Chat, bindparam("owner", type_=Uuid())),
            Chat.id == bindparam("chat", type_=Uuid()),
        )
        .subquery()
    )
    line = _line(chat, start=None if from_leaf else bindparam("start", type_=Uuid()))
    # It may be long, and is wanted once.
    prompt = case((line.c.depth > 1, None), else_=chat.c.system_prompt)
    statement: Select[Any] = (
        select(
            chat.c.project_id,
            chat.c.model.label("chat_model"),
            chat.c.title,
            prompt.label("system_prompt"),
            chat.c.temporary,
            chat.c.leaf_id,
            Message.id,
            Message.parent_id,
            Message.role,
            Message.status,
            Message.content,
            _summary(MessageSummary.text, line).label("summary"),
            _summary(MessageSummary.files, line).label("summary_files"),
        )
        .select_from(chat)
        .join(line, true(), isouter=True)
        .join(Message, Message.id == line.c.id, isouter=True)
        .order_by(line.c.depth)
    )
    return Statement(statement)


def _line(chat: Subquery, *, start: BindParameter[UUID] | None) -> CTE:
    """The ids from `start` (or else the chat's leaf) up, with their depth."""
    first = chat.c.leaf_id if start is None else start
    line = (
        select(
            Message.id,
            Message.parent_id,
            literal(1).label("depth"),
            size(Message).label("size"),
            # Of the first message all is wanted, whatever summary ends with it.
            literal(value=False).label("summarised"),
        )
        .join(chat, and_(Message.chat_id == chat.c.id, Message.id == first))
        .cte("line", recursive=True)
    )
    parent = aliased(Message)
    total = line.c.size + size(parent)
    return line.union_all(
        select(
            parent.id,
            parent.parent_id,
            line.c.depth + 1,
            total,
            # Only a reply may have one: it costs each message a look.
            case(
                (
                    parent.role == "assistant",
                    exists().where(MessageSummary.message_id == parent.id),
                ),
                else_=literal(value=False),
            ),
        )
        .join(line, parent.id == line.c.parent_id)
        .where(
            ~line.c.summarised,
            line.c.depth < bindparam("most", type_=Integer()),
            total <= literal(_MOST_CHARACTERS, Integer()),
        )
    )


def _summary(column: InstrumentedAttribute[Any], line: CTE) -> ColumnElement[Any]:
    """Read of the one message of a line that has one, so that no other pays for it."""
    found = select(column).where(MessageSummary.message_id == line.c.id)
    return case((line.c.summarised, found.scalar_subquery()), else_=None)


_CHAT = (
    Chat.id,
    Chat.project_id,
    Chat.model,
    Chat.title,
    Chat.system_prompt,
    Chat.temporary,
    Chat.leaf_id,
)
