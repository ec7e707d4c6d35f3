"""A call of a chat's model beside its turns: for titles and summaries."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace

import structlog

from app.core.exceptions import AppError
from app.integrations.llm.base import (
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
from app.models import Chat
from app.services.chat.books import Account, Books

_log = structlog.get_logger()


async def writers(router: Router, chat: Chat, *, tokens: int) -> list[Candidate]:
    """Of the chat's model, what can write; raises as `Router.candidates` does."""
    return [
        candidate
        for candidate in await router.candidates(chat.model, tokens=tokens)
        if candidate.provider.name != "guide"  # it quotes, it does not write
    ]


async def ask(
    router: Router, books: Books, chat: Chat, request: ChatRequest, *, kind: str
) -> str:
    """What the chat's model answers; booked as `kind`, on the chat's owner.

    Empty where it has nothing to say, there is none that can, or the user cannot pay
    for it. Raises the ProviderError of a call that cost nothing and may go through
    later.
    """
    tokens = estimate_input(request)
    try:
        candidates = await writers(router, chat, tokens=tokens)
        if not candidates:
            return ""
        models = [candidate.model for candidate in candidates]
        account = await books.reserve(
            chat.user_id,
            as_one(chat.model, models),
            kind=kind,
            input_tokens=tokens,
            output_tokens=request.max_tokens,
        )

        def call(candidate: Candidate) -> AsyncGenerator[ProviderEvent]:
            account.goes_to(candidate.model)
            asked = replace(request, model=candidate.model.id)
            return candidate.provider.stream(asked)  # type: ignore[return-value]  # every provider's stream is an async generator

        events = router.routed(candidates, call, begun=is_answer, tokens=tokens)
        return await _written(events, request, account)
    except AppError as error:
        if isinstance(error, ProviderError) and error.retryable:
            raise
        _log.info("no model helped", kind=kind, chat_id=str(chat.id), code=error.code)
        return ""


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
