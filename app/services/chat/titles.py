"""Naming a chat after its first turn."""

from uuid import UUID

from sqlalchemy import or_, select, update

from app.core.database import Database, changed_rows
from app.integrations.llm.base import ChatMessage, ChatRequest, ProviderError
from app.integrations.llm.routing import Router
from app.models import Chat, Message
from app.services.chat import aside, search
from app.services.chat.books import Books

_LONGEST = 60  # characters
_MOST_TOKENS = 40
_SEEN = 2000  # characters of each message that the model gets
_INSTRUCTIONS = (
    "Name the conversation below in at most six words, in its own language. Answer "
    "with the name alone: no quotes, no full stop, no explanation."
)
_WRAPPING = " .\"'“”«»"


async def write(
    database: Database, router: Router, books: Books, chat_id: UUID
) -> None:
    """Give the chat a title, unless it has one by now or is no more.

    Where no model helps, the question names it. Raises the ProviderError of a call
    that cost nothing and may go through later: until then the question names the chat.
    """
    async with database.unit_of_work(read_only=True) as session:
        chat = await session.get(Chat, chat_id)
        if chat is None or chat.temporary:
            return
        found = await session.scalars(
            select(Message)
            .where(Message.chat_id == chat_id)
            .order_by(Message.id)
            .limit(2)
        )
        texts = [message.text for message in found]
    if not texts or chat.title not in {None, ours := shorten(texts[0])}:
        return
    try:
        title = await _ask(router, books, chat, texts)
    except ProviderError:
        await _name(database, chat_id, ours, over=ours)
        raise
    await _name(database, chat_id, title or ours, over=ours)


async def _name(database: Database, chat_id: UUID, title: str, *, over: str) -> None:
    """Store it, where there is none yet, or what an earlier try left."""
    async with database.unit_of_work() as session:
        named = await session.execute(
            update(Chat)
            .where(Chat.id == chat_id, or_(Chat.title.is_(None), Chat.title == over))
            # A name is no news: the chat keeps its place in the list.
            .values(title=title, updated_at=Chat.updated_at)
        )
        if changed_rows(named):
            await search.index_title(session, chat_id, title)


def shorten(text: str) -> str:
    """The first line, cut between words."""
    text = text.replace("\0", "").strip()  # which PostgreSQL cannot store
    line = " ".join(text.splitlines()[0].split()) if text else "Chat"
    if len(line) <= _LONGEST:
        return line
    return line[:_LONGEST].rsplit(" ", 1)[0].rstrip(",.;: ") + "…"


async def _ask(router: Router, books: Books, chat: Chat, texts: list[str]) -> str:
    """The model's proposal; empty where it has none, or the user cannot pay for it."""
    conversation = "\n\n".join(text[:_SEEN] for text in texts)
    asked = ChatMessage("user", [{"type": "text", "text": conversation}])
    request = ChatRequest("", [asked], _INSTRUCTIONS, _MOST_TOKENS)
    written = await aside.ask(router, books, chat, request, kind="title")
    return shorten(written).strip(_WRAPPING) if written else ""
