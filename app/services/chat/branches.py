"""A chat's tree of messages: the branch that is shown, copying one, cutting one off."""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import CTE, delete, exists, insert, literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased
from uuid_utils.compat import uuid7

from app.core.database import after_commit
from app.core.exceptions import NotFoundError
from app.models import Chat, Message, MessageSummary
from app.schemas.chat import ChatFork
from app.services.authorization import Principal, require
from app.services.chat import search
from app.services.chat.beginning import TurnInProgressError
from app.services.chat.turns import Turns

_BATCH = 50
# A copy costs nothing, is judged anew, and is written by nobody.
_COPIED = (
    Message.id,
    Message.role,
    Message.content,
    Message.citations,
    Message.model,
    Message.status,
    Message.stop_reason,
    Message.error,
    Message.created_at,
)


async def newest_leaf(
    session: AsyncSession, chat_id: UUID, *, below: UUID | None = None
) -> UUID | None:
    """The newest message that nothing follows: in all of the chat, or under one.

    None for an empty chat; raises NotFoundError where `below` is not in it.
    """
    child = aliased(Message)
    leaves = (
        select(Message.id)
        .where(
            Message.chat_id == chat_id,
            ~exists().where(child.parent_id == Message.id),
        )
        .order_by(Message.id.desc())
        .limit(1)
    )
    if below is not None:
        leaves = leaves.where(Message.id.in_(select(_subtree(below).c.id)))
    found = await session.scalar(leaves)
    if found is None and below is not None:
        raise NotFoundError("There is no message with this id in this chat.")
    return found


async def line(session: AsyncSession, chat_id: UUID, leaf_id: UUID) -> Sequence[UUID]:
    """The ids on the way from the first message to `leaf_id`, the first first.

    Raises NotFoundError where the chat has no such message.
    """
    up = (
        select(Message.id, Message.parent_id, literal(1).label("depth"))
        .where(Message.chat_id == chat_id, Message.id == leaf_id)
        .cte("line", recursive=True)
    )
    parent = aliased(Message)
    up = up.union_all(
        select(parent.id, parent.parent_id, up.c.depth + 1).join(
            up, parent.id == up.c.parent_id
        )
    )
    found = await session.scalars(select(up.c.id).order_by(up.c.depth.desc()))
    ids = found.all()
    if not ids:
        raise NotFoundError("There is no message with this id in this chat.")
    return ids


async def fork(
    session: AsyncSession, principal: Principal, chat_id: UUID, form: ChatFork
) -> Chat:
    """A new chat with a copy of one branch, up to a message or to its end.

    Raises ConflictError where that message is being written.
    """
    # Locked: nobody may delete meanwhile what is copied batch by batch.
    chat = await require(session, principal, Chat, chat_id, lock=True)
    leaf_id = form.message_id or chat.leaf_id
    ids = await line(session, chat_id, leaf_id) if leaf_id else []
    new_ids = {old: uuid7() for old in ids}
    copy = Chat(
        user_id=principal.user_id,
        title=form.title or chat.title,
        model=chat.model,
        system_prompt=chat.system_prompt,
        project_id=chat.project_id,
        leaf_id=new_ids[ids[-1]] if ids else None,
    )
    session.add(copy)
    await session.flush()
    await search.index_title(session, copy.id, copy.title)
    parent: UUID | None = None
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        rows = await _copies(session, batch, copy.id)
        for old in batch:
            rows[old] |= {"id": new_ids[old], "parent_id": parent}
            parent = new_ids[old]
        ordered = [rows[old] for old in batch]
        await session.execute(insert(Message), ordered)
        await _copy_summaries(session, {old: new_ids[old] for old in batch})
        await search.index_messages(session, [Message(**row) for row in ordered])
    return copy


async def delete_below(
    session: AsyncSession, principal: Principal, turns: Turns, message_id: UUID
) -> None:
    """Delete a message with all that follows it; replies being written there end."""
    message = await require(session, principal, Message, message_id)
    # Whoever adds a message changes the chat first, so nobody adds one meanwhile.
    chat = await require(session, principal, Chat, message.chat_id, lock=True)
    deleted = await session.execute(
        delete(Message)
        .where(Message.id.in_(select(_subtree(message_id).c.id)))
        .returning(Message.id, Message.status)
        .execution_options(synchronize_session=False)
    )
    gone = {row.id: row.status for row in deleted}
    if chat.leaf_id in gone:
        chat.leaf_id = await newest_leaf(session, chat.id)
    running = [one for one, status in gone.items() if status == "streaming"]
    after_commit(session, lambda: turns.abandon_messages(running))


async def _copies(
    session: AsyncSession, ids: Sequence[UUID], chat_id: UUID
) -> dict[UUID, dict[str, Any]]:
    found = await session.execute(select(*_COPIED).where(Message.id.in_(ids)))
    rows: dict[UUID, dict[str, Any]] = {}
    for row in found.mappings():
        if row["status"] == "streaming":
            raise TurnInProgressError(row["id"])
        rows[row["id"]] = {**row, "chat_id": chat_id}
    return rows


async def _copy_summaries(session: AsyncSession, copies: Mapping[UUID, UUID]) -> None:
    """What is told of the messages holds for their copies."""
    found = await session.execute(
        select(
            MessageSummary.message_id, MessageSummary.text, MessageSummary.files
        ).where(MessageSummary.message_id.in_(copies))
    )
    rows = [
        {**row, "message_id": copies[row["message_id"]]} for row in found.mappings()
    ]
    if rows:
        await session.execute(insert(MessageSummary), rows)


def _subtree(message_id: UUID) -> CTE:
    """A message and all below it."""
    below = (
        select(Message.id).where(Message.id == message_id).cte("below", recursive=True)
    )
    child = aliased(Message)
    return below.union_all(select(child.id).join(below, child.parent_id == below.c.id))
