"""Naming a chat after its first turn."""

import time
from contextlib import aclosing
from uuid import UUID

import structlog
from sqlalchemy import select, update

from app.core.database import Database, changed_rows
from app.core.exceptions import AppError
from app.integrations.llm.base import (
    ChatMessage,
    ChatRequest,
    Provider,
    TextDelta,
    Usage,
)
from app.integrations.llm.registry import Providers
from app.integrations.llm.tokens import estimate_input
from app.models import Chat, Message
from app.services.chat import search
from app.services.chat.books import Account, Books

_LONGEST = 60  # characters
_MOST_TOKENS = 40
_SEEN = 2000  # characters of each message that the model gets
_INSTRUCTIONS = (
    "Name the conversation below in at most six words, in its own language. Answer "
    "with the name alone: no quotes, no full stop, no explanation."
)
_WRAPPING = " .\"'“”«»"
_log = structlog.get_logger()


async def write(
    database: Database, providers: Providers, books: Books, chat_id: UUID
) -> None:
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
    title = await _ask(providers, books, chat, texts) or shorten(texts[0])
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


async def _ask(providers: Providers, books: Books, chat: Chat, texts: list[str]) -> str:
    """The model's proposal; empty where it has none, or the user cannot pay for it."""
    if chat.model.startswith("guide/"):
        return ""  # it quotes the manual, it does not write
    conversation = "\n\n".join(text[:_SEEN] for text in texts)
    asked = ChatMessage("user", [{"type": "text", "text": conversation}])
    try:
        provider, model = await providers.resolve(chat.model)
        request = ChatRequest(model.id, [asked], _INSTRUCTIONS, _MOST_TOKENS)
        account = await books.reserve(
            chat.user_id,
            model,
            kind="title",
            input_tokens=estimate_input(request),
            output_tokens=_MOST_TOKENS,
        )
        written = await _written(provider, request, account)
    except AppError as error:
        _log.info("title without a model", chat_id=str(chat.id), code=error.code)
        return ""
    return shorten(written).strip(_WRAPPING) if written else ""


async def _written(provider: Provider, request: ChatRequest, account: Account) -> str:
    """What the model writes; paid for and logged, whatever comes of it."""
    begun, parts, used, status = time.perf_counter(), [""], Usage(0, 0), "error"
    try:
        async with aclosing(provider.stream(request)) as events:  # type: ignore[type-var]  # every provider's stream is an async generator
            async for event in events:
                if isinstance(event, TextDelta):
                    parts.append(event.text)
                elif isinstance(event, Usage):
                    used = event
        status = "complete"
    finally:
        paid = account.settle(used)
    text = "".join(parts)
    answer = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    asked = [{"role": m.role, "content": list(m.content)} for m in request.messages]
    await account.log(
        status=status,
        used=used,
        paid=paid,
        seconds=time.perf_counter() - begun,
        messages=[*asked, answer],
    )
    return text
