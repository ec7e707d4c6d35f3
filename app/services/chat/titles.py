"""Naming a chat after its first turn."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from uuid import UUID

import structlog
from sqlalchemy import or_, select, update

from app.core.database import Database, changed_rows
from app.core.exceptions import AppError
from app.integrations.llm.base import (
    ChatMessage,
    ChatRequest,
    ProviderError,
    ProviderEvent,
    TextDelta,
    Usage,
    is_answer,
)
from app.integrations.llm.routes import as_one
from app.integrations.llm.routing import Candidate, Router
from app.integrations.llm.tokens import estimate_input, estimate_tokens
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
    tokens = estimate_input(request)
    try:
        candidates = [
            candidate
            for candidate in await router.candidates(chat.model, tokens=tokens)
            if candidate.provider.name != "guide"  # it quotes, it does not write
        ]
        if not candidates:
            return ""
        models = [candidate.model for candidate in candidates]
        account = await books.reserve(
            chat.user_id,
            as_one(chat.model, models),
            kind="title",
            input_tokens=tokens,
            output_tokens=_MOST_TOKENS,
        )

        def call(candidate: Candidate) -> AsyncGenerator[ProviderEvent]:
            account.goes_to(candidate.model)
            asked = replace(request, model=candidate.model.id)
            return candidate.provider.stream(asked)  # type: ignore[return-value]  # every provider's stream is an async generator

        events = router.routed(candidates, call, begun=is_answer, tokens=tokens)
        written = await _written(events, request, account)
    except AppError as error:
        if isinstance(error, ProviderError) and error.retryable:
            raise
        _log.info("title without a model", chat_id=str(chat.id), code=error.code)
        return ""
    return shorten(written).strip(_WRAPPING) if written else ""


async def _written(
    events: AsyncGenerator[ProviderEvent], request: ChatRequest, account: Account
) -> str:
    """What the model writes; paid for and logged, whatever comes of it.

    Empty where it broke off, for whoever asked again would pay twice. Raises the
    ProviderError of a call that cost nothing.
    """
    begun, parts, whole = time.perf_counter(), [""], False
    told: Usage | None = None
    failure: ProviderError | None = None
    try:
        async with aclosing(events):
            async for event in events:
                if isinstance(event, TextDelta):
                    parts.append(event.text)
                elif isinstance(event, Usage):
                    told = event
        whole = True
    except ProviderError as error:
        failure = error
    finally:
        text = "".join(parts)
        used, paid = _settle(account, told, text, whole=whole)
    answer = {"role": "assistant", "content": [{"type": "text", "text": text}]}
    asked = [{"role": m.role, "content": list(m.content)} for m in request.messages]
    await account.log(
        status="complete" if whole else "error",
        used=used,
        paid=paid,
        seconds=time.perf_counter() - begun,
        messages=[*asked, answer],
    )
    if failure is not None and told is None:
        raise failure
    return text if whole else ""


def _settle(
    account: Account, told: Usage | None, text: str, *, whole: bool
) -> tuple[Usage, int]:
    """What was used, and what the user pays; nothing where no provider took the call.

    One that broke off is billed for what it wrote, but has not said how much.
    """
    if told is None:
        account.cancel()
        return Usage(0, 0), 0
    if not whole:
        written = max(told.output_tokens, estimate_tokens(text))
        told = replace(told, output_tokens=written, estimated=True)
    return told, account.settle(told)
