"""Calls of models that say nothing, paid for: embeddings, and what projects need."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Protocol, TypeVar

from app.integrations.llm.base import Usage
from app.integrations.llm.embeddings import Embedded, EmbedRequest, embed
from app.integrations.llm.routing import Candidate, Router
from app.services.chat.books import Account

T = TypeVar("T")

BYTES_A_TOKEN = 3
"""What is longer than a model takes is cut off: models refuse it. By this a text is
seldom too long, whatever its script."""


class Took(Protocol):
    """Is told what was billed, of each of the calls that a request needs."""

    def __call__(self, input_tokens: int, *, estimated: bool) -> None: ...


async def embedded(
    router: Router,
    account: Account,
    candidates: Sequence[Candidate],
    request: EmbedRequest,
    *,
    tokens: int,
) -> Embedded:
    """What the first candidate that can makes of it; as `answered`."""

    async def call(candidate: Candidate, took: Took) -> Embedded:
        asked = replace(request, model=candidate.model.id)
        return await embed(
            candidate.provider,
            asked,
            took=lambda part: took(part.input_tokens, estimated=part.estimated),
        )

    return await answered(router, account, candidates, call, tokens=tokens)


async def answered(
    router: Router,
    account: Account,
    candidates: Sequence[Candidate],
    call: Callable[[Candidate, Took], Awaitable[T]],
    *,
    tokens: int,
) -> T:
    """What the first candidate that can answers; billed and logged, once.

    `tokens` is what was reserved for. Raises the last candidate's ProviderError.
    """
    used, paid = Usage(0, 0), 0

    def took(input_tokens: int, *, estimated: bool) -> None:
        nonlocal used
        read = used.input_tokens + input_tokens
        used = Usage(read, 0, estimated=used.estimated or estimated)

    def ask(candidate: Candidate) -> Awaitable[T]:
        account.goes_to(candidate.model)
        return call(candidate, took)

    begun, status = time.perf_counter(), "error"
    try:
        made = await router.answered(candidates, ask, tokens=tokens)
        status = "complete"
    except asyncio.CancelledError:
        status = "stopped"
        raise
    finally:
        # Some of many calls may be answered, and billed, though not all of them.
        if used.input_tokens:
            paid = account.settle(used)
        account.cancel()  # it does nothing where it is settled
        await account.log(
            status=status,
            used=used,
            paid=paid,
            seconds=time.perf_counter() - begun,
            messages=(),
        )
    return made


def cut(text: str, most: int) -> str:
    """Its first bytes, in whole characters."""
    return text.encode()[:most].decode(errors="ignore")
