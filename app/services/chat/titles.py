"""Naming a chat after its first turn."""

from contextlib import aclosing
from uuid import UUID

import structlog
from sqlalchemy import select, update

from app.core.database import Database, changed_rows
from app.integrations.llm.base import (
    ChatMessage,
    ChatRequest,
    ProviderError,
    TextDelta,
    Usage,
)
from app.integrations.llm.registry import Providers
from app.models import Chat, Message
from app.services.chat import search

_LONGEST = 60  # characters
_SEEN = 2000  # characters of each message that the model gets
_INSTRUCTIONS = (
    "Name the conversation below in at most six words, in its own language. Answer "
    "with the name alone: no quotes, no full stop, no explanation."
)
_WRAPPING = " .\"'“”«»"
_log = structlog.get_logger()


async def write(database: Database, providers: Providers, chat_id: UUID) -> None:
    """Give the chat a title, unless it has one by now or is no more."""
    async with database.unit_of_work(read_only=True) as session:
        chat = await session.get(Chat, chat_id)
        if chat is None or chat.title is not None or chat.temporary:
            return
        found = await session.scalars(
            select(Message)
            .where(Message.chat_id == chat_id)
            .order_by(Message.id)
            .limit(2)
        )
        texts = [message.text for message in found]
    title = await _ask(providers, chat, texts) or shorten(texts[0])
    async with database.unit_of_work() as session:
        named = await session.execute(
            update(Chat)
            .where(Chat.id == chat_id, Chat.title.is_(None))
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


async def _ask(providers: Providers, chat: Chat, texts: list[str]) -> str:
    """The model's proposal; empty where it has none."""
    if chat.model.startswith("guide/"):
        return ""  # it quotes the manual, it does not write
    conversation = "\n\n".join(text[:_SEEN] for text in texts)
    written: list[str] = []
    try:
        provider, model = await providers.resolve(chat.model)
        request = ChatRequest(
            model=model.id,
            messages=[
                ChatMessage("user", [{"type": "text", "text": conversation}]),
            ],
            system=_INSTRUCTIONS,
            max_tokens=40,
        )
        async with aclosing(provider.stream(request)) as events:  # type: ignore[type-var]  # every provider's stream is an async generator
            async for event in events:
                if isinstance(event, TextDelta):
                    written.append(event.text)
                elif isinstance(event, Usage):
                    _log.debug("title", chat_id=str(chat.id), usage=event)
    except ProviderError as error:
        _log.info("title without a model", chat_id=str(chat.id), code=error.code)
        return ""
    title = shorten("".join(written)).strip(_WRAPPING)
    return title if written else ""
