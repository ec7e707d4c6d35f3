"""Links by which everybody may read one branch of a chat, as it stood when shared."""

import secrets
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from sqlalchemy import delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database
from app.core.exceptions import ConflictError, NotFoundError
from app.core.tokens import fingerprint
from app.integrations.llm.base import Block
from app.models import Chat, ChatShare, Message, User
from app.schemas.chat import ShareRead
from app.schemas.message import CitationRead, SharedMessage
from app.services.authorization import Principal, require
from app.services.chat import export
from app.services.chat.beginning import TurnInProgressError

_PUBLIC = {"text", "image", "document", "file"}


async def create(
    session: AsyncSession, principal: Principal, chat_id: UUID, *, base_url: str
) -> ShareRead:
    """A new link to the branch that is shown; the one before it ends.

    Raises ConflictError for an empty chat, and while the last reply is being written.
    """
    chat = await require(session, principal, Chat, chat_id, lock=True)
    if chat.leaf_id is None:
        raise ConflictError(
            "There is nothing to share in an empty chat.", code="nothing_to_share"
        )
    leaf = await require(session, principal, Message, chat.leaf_id)
    if leaf.status == "streaming":
        raise TurnInProgressError(leaf.id)
    await _revoke(session, chat_id)
    token = secrets.token_urlsafe(32)
    share = ChatShare(
        chat_id=chat_id,
        message_id=leaf.id,
        token_hash=fingerprint(token),
        title=chat.title,
        content=leaf.content,
        citations=leaf.citations,
    )
    session.add(share)
    await session.flush()
    return ShareRead(
        id=share.id,
        token=token,
        url=f"{base_url}/shared/{token}",
        created_at=share.created_at,
    )


async def revoke(session: AsyncSession, principal: Principal, chat_id: UUID) -> None:
    """End the chat's link, if it has one."""
    await _revoke(session, (await require(session, principal, Chat, chat_id)).id)


async def opened(session: AsyncSession, token: str) -> ChatShare:
    """What a link leads to; raises NotFoundError for one that never was or is ended.

    One of an account that cannot be used rests until it can.
    """
    share = await session.scalar(
        select(ChatShare)
        .join(Chat, Chat.id == ChatShare.chat_id)
        .join(User, User.id == Chat.user_id)
        .where(ChatShare.token_hash == fingerprint(token), User.status == "active")
    )
    if share is None:
        raise NotFoundError("This link leads nowhere: it may have been taken back.")
    return share


async def messages(
    database: Database, share: ChatShare
) -> AsyncIterator[Sequence[SharedMessage]]:
    """The shared branch, the first message first, in batches."""
    async for batch in export.branch(database, share.chat_id, share.message_id):
        yield [_shown(message, share) for message in batch]


def _shown(message: Message, share: ChatShare) -> SharedMessage:
    if message.id == share.message_id:
        message.content, message.citations = share.content, share.citations
    return SharedMessage(
        role="user" if message.role == "user" else "assistant",
        content=[_for_all(b) for b in message.content if b["type"] in _PUBLIC],
        text=message.text,
        model=message.model,
        citations=[CitationRead.model_validate(c) for c in message.citations],
        created_at=message.created_at,
    )


def _for_all(block: Block) -> Block:
    """A document is named only: what is in it was never shown in the chat."""
    if block["type"] == "document":
        return {"type": "document", "title": block.get("title")}
    if block["type"] == "file":  # by its name: the file itself is not shared
        return {"type": "document", "title": block["name"]}
    return block


async def _revoke(session: AsyncSession, chat_id: UUID) -> None:
    await session.execute(delete(ChatShare).where(ChatShare.chat_id == chat_id))
