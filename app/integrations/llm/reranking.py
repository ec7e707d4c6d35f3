"""The port for reranking: texts in the order in which they answer a question.

The wire form is Cohere's, which servers of models for it share. Nothing of an answer is
seen before it is there, so a call that fails may be made again (see `routing`).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

from app.integrations.llm.base import (
    Provider,
    ProviderRejectedError,
    ProviderStreamBrokenError,
)
from app.integrations.llm.tokens import estimate_tokens


@dataclass(frozen=True, slots=True)
class RerankRequest:
    """One call of a model; `model` is the provider's own id, without our prefix.

    The best `top` of the documents are wanted.
    """

    model: str
    query: str
    documents: Sequence[str]
    top: int


class Ranked(NamedTuple):
    """A document by its place in the request; a higher score is a better answer."""

    place: int
    score: float


@dataclass(frozen=True, slots=True)
class Reranked:
    """The best documents, best first; `estimated` marks a count of tokens of ours."""

    ranked: Sequence[Ranked]
    input_tokens: int
    estimated: bool = False


@runtime_checkable
class Reranker(Protocol):
    """A provider that has models with the capability "reranking"."""

    def rerank_tokens(self, request: RerankRequest) -> int:
        """What the call will be billed as, as far as can be told before it is made."""

    async def rerank(self, request: RerankRequest) -> Reranked:
        """Run one call. Raises ProviderError."""


def tokens_of(provider: Provider, request: RerankRequest) -> int:
    return provider.rerank_tokens(request) if isinstance(provider, Reranker) else 0


async def rerank(provider: Provider, request: RerankRequest) -> Reranked:
    if not isinstance(provider, Reranker):
        raise ProviderRejectedError(f"{provider.name} has no models for reranking.")
    return await provider.rerank(request)


def estimate_pairs(request: RerankRequest) -> int:
    """The tokens of a request: a model reads the question with each document."""
    documents = sum(map(estimate_tokens, request.documents))
    return estimate_tokens(request.query) * len(request.documents) + documents


# For providers


def body_of(request: RerankRequest) -> dict[str, Any]:
    return {
        "query": request.query,
        "documents": list(request.documents),
        "top_n": request.top,
    }


def reranked(
    request: RerankRequest,
    who: str,
    results: Iterable[Mapping[str, Any]],
    tokens: int | None,
) -> Reranked:
    """What a server sent; `tokens` is what it says that they took.

    Some servers send all documents, whatever was asked for, or none in order.
    """
    told = [Ranked(one["index"], float(one["relevance_score"])) for one in results]
    places = {one.place for one in told}
    wanted = min(request.top, len(request.documents))
    if len(places) < max(wanted, len(told)) or not places <= set(
        range(len(request.documents))
    ):
        raise ProviderStreamBrokenError(f"{who} ranked other documents than it got.")
    best = sorted(told, key=lambda one: (-one.score, one.place))[:wanted]
    if tokens is None:
        return Reranked(best, estimate_pairs(request), estimated=True)
    return Reranked(best, tokens)
