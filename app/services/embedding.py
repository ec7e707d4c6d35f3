"""Texts as vectors, paid for: for the gateway's clients, and for projects."""

import time
from collections.abc import Awaitable, Sequence
from dataclasses import replace

from app.integrations.llm.base import Usage
from app.integrations.llm.embeddings import Embedded, EmbedRequest, embed
from app.integrations.llm.routing import Candidate, Router
from app.services.chat.books import Account


async def embedded(
    router: Router,
    account: Account,
    candidates: Sequence[Candidate],
    request: EmbedRequest,
    *,
    tokens: int,
) -> Embedded:
    """What the first candidate that can makes of it; billed and logged, once.

    `tokens` is what was reserved for. Raises the last candidate's ProviderError.
    """
    used, paid = Usage(0, 0), 0

    def took(part: Embedded) -> None:
        nonlocal used
        read = used.input_tokens + part.input_tokens
        used = Usage(read, 0, estimated=used.estimated or part.estimated)

    def call(candidate: Candidate) -> Awaitable[Embedded]:
        account.goes_to(candidate.model)
        asked = replace(request, model=candidate.model.id)
        return embed(candidate.provider, asked, took=took)

    begun, status = time.perf_counter(), "error"
    try:
        made = await router.answered(candidates, call, tokens=tokens)
        status = "complete"
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
