"""Found passages in a new order: that of a model which reads each with the question.

A search finds them without it, and keeps its own order where the model fails.
"""

from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from uuid import UUID

import orjson

from app.core.cache import Cache
from app.integrations.llm.reranking import (
    Ranked,
    Reranked,
    RerankRequest,
    rerank,
    tokens_of,
)
from app.integrations.llm.routes import as_one
from app.integrations.llm.routing import Candidate, Router
from app.models import KeyLimits
from app.services.chat.books import Books
from app.services.embedding import BYTES_A_TOKEN, Took, answered, cut
from app.services.knowledge.asking import Asking
from app.services.knowledge.search import MOST_CHARACTERS, Found

_FEWEST = 40
"""Passages that are ordered anew, or all that are wanted. AWS bills up to 100 as one
search."""

_REMEMBERED, _REMEMBER_SECONDS = 500, 300.0
"""Orders: a turn asks for what its preview showed."""


class Reranking:
    """`model` is empty where the installation has none for it."""

    def __init__(self, model: str, *, router: Router, books: Books) -> None:
        self._model = model
        self._router = router
        self._books = books
        self._asking = Asking(model, without="searched without reranking")
        # By who asks, as questions are remembered: see `Embedding`.
        self._orders: Cache[tuple[UUID, bytes], Sequence[Ranked]] = Cache(
            size=_REMEMBERED, ttl=lambda: _REMEMBER_SECONDS
        )

    def candidates(self, limit: int) -> int:
        """How many passages a search should find for the best `limit` of them."""
        return max(limit, _FEWEST) if self._model else limit

    async def best(
        self,
        user_id: UUID,
        query: str,
        found: Sequence[Found],
        *,
        limit: int,
        key: KeyLimits | None,
    ) -> Sequence[Found]:
        """The best `limit` of what was found, with the model's scores.

        It is one call of the model, which the user pays, within the limits of the `key`
        by which they ask; the same once more is none.
        """
        if not self._model or len(found) < 2:  # noqa: PLR2004 - one is in order
            return found[:limit]
        query = query[:MOST_CHARACTERS]
        asked = user_id, _digest(query, found, limit)

        async def ask() -> Sequence[Ranked]:
            made = await self._reranked(user_id, query, found, limit=limit, key=key)
            return made.ranked

        order = self._orders.find(asked)
        if order is None:
            order = await self._asking.answer(lambda: self._orders.get(asked, ask))
        if order is None:
            return found[:limit]
        return [replace(found[one.place], score=one.score) for one in order]

    async def _reranked(
        self,
        user_id: UUID,
        query: str,
        found: Sequence[Found],
        *,
        limit: int,
        key: KeyLimits | None,
    ) -> Reranked:
        candidates = await self._router.candidates(self._model, able="reranking")
        most = min(one.model.context_window for one in candidates) * BYTES_A_TOKEN
        query = cut(query, most // 2)  # a model takes both together
        documents = [cut(one.shown, most // 2) for one in found]
        request = RerankRequest(self._model, query, documents, top=limit)
        tokens = max(tokens_of(one.provider, request) for one in candidates)
        account = await self._books.reserve(
            user_id,
            as_one(self._model, [one.model for one in candidates]),
            kind="knowledge",
            input_tokens=tokens,
            output_tokens=0,
            key=key,
            asked=self._model,
        )

        async def call(candidate: Candidate, took: Took) -> Reranked:
            asked = replace(request, model=candidate.model.id)
            made = await rerank(candidate.provider, asked)
            took(made.input_tokens, estimated=made.estimated)
            return made

        return await answered(self._router, account, candidates, call, tokens=tokens)


def _digest(query: str, found: Sequence[Found], limit: int) -> bytes:
    """Of all that the model would be asked: whatever changes there is another order."""
    asked = [limit, query, *(one.shown for one in found)]
    return sha256(orjson.dumps(asked)).digest()
