"""The port for embeddings: texts as vectors, by the providers that have models for it.

Nothing of an answer is seen before it is there, so a call that fails may be made again
as one that has not begun (see `routing`).
"""

import asyncio
from array import array
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, runtime_checkable

from app.integrations.llm.base import (
    Provider,
    ProviderError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
)
from app.integrations.llm.idle import was_idle
from app.integrations.llm.tokens import estimate_tokens

CALLS_AT_ONCE = 8
"""For one request, no more calls of its provider run at the same time."""

Input = str | Sequence[int]
"""A text, or one as its tokens' ids in the model's own vocabulary."""

InputType = Literal["document", "query"]
"""What texts are for: to be found, or to find with. Some models tell them apart."""


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """One call of a model; `model` is the provider's own id, without our prefix.

    `dimensions` is how long the vectors are to be. None leaves a choice to the model.
    What a provider has no means for it refuses with a ProviderRejectedError that names
    it, but for `input_type`: a model that knows no difference makes none.
    """

    model: str
    inputs: Sequence[Input]
    dimensions: int | None = None
    input_type: InputType | None = None


@dataclass(frozen=True, slots=True)
class Embedded:
    """A vector for each input, in their order.

    `estimated` marks a figure of ours, where the provider sent none.
    """

    vectors: Sequence[Sequence[float]]
    input_tokens: int
    estimated: bool = False


@runtime_checkable
class Embedder(Protocol):
    """A provider that has models with the capability "embeddings"."""

    def most_inputs(self, model: str) -> int:
        """How many inputs one call of the model takes."""

    async def embed(self, request: EmbedRequest) -> Embedded:
        """Run one call, of no more inputs than that. Raises ProviderError."""


async def embed(
    provider: Provider,
    request: EmbedRequest,
    *,
    took: Callable[[Embedded], object] = lambda _: None,
) -> Embedded:
    """Run as many calls as the inputs need, and tell `took` of each that is answered.

    After one that fails no other begins; those on their way end, for they are billed.
    Where it is cancelled, those count with an estimate.
    """
    if not isinstance(provider, Embedder):
        raise ProviderRejectedError(f"{provider.name} has no models for embeddings.")
    most = provider.most_inputs(request.model)
    slots = asyncio.Semaphore(CALLS_AT_ONCE)
    failures: list[BaseException] = []

    async def call(start: int) -> Embedded | None:
        async with slots:
            if failures:
                return None
            inputs = request.inputs[start : start + most]
            asked = replace(request, inputs=inputs)
            try:
                part = await provider.embed(asked)
            except ProviderError as error:
                failures.append(error)
                return None
            except asyncio.CancelledError as error:
                if not was_idle(error):  # it is at work on it, and bills that
                    took(Embedded((), estimate_inputs(asked), estimated=True))
                raise
            took(part)
            return part

    starts = range(0, len(request.inputs), most)
    made = await asyncio.gather(*map(call, starts))
    if failures:
        raise failures[0]
    parts = [part for part in made if part is not None]
    return Embedded(
        [vector for part in parts for vector in part.vectors],
        sum(part.input_tokens for part in parts),
        any(part.estimated for part in parts),
    )


def estimate_inputs(request: EmbedRequest) -> int:
    """The tokens that a request sends; ids of tokens need no estimate."""
    return sum(
        estimate_tokens(one) if isinstance(one, str) else len(one)
        for one in request.inputs
    )


# For providers


def texts_of(request: EmbedRequest, who: str) -> list[str]:
    """The inputs, for a server that takes nothing but texts."""
    texts = [one for one in request.inputs if isinstance(one, str)]
    if len(texts) < len(request.inputs):
        raise ProviderRejectedError(f"input: {who} takes texts, and no ids of tokens.")
    return texts


def embedded(
    request: EmbedRequest,
    who: str,
    rows: Iterable[Sequence[float]],
    tokens: int | None,
) -> Embedded:
    """What a server sent: `rows` are the vectors, `tokens` what it says they took.

    A vector is kept as doubles, 8 bytes for each number where a list takes 32. Raises
    ProviderRejectedError where a server overlooked the dimensions that were asked for.
    """
    vectors = [array("d", row) for row in rows]
    if len(vectors) != len(request.inputs):
        raise ProviderStreamBrokenError(
            f"{who} sent {len(vectors)} vectors for {len(request.inputs)} inputs."
        )
    wanted = request.dimensions
    for vector in vectors:
        if wanted and len(vector) != wanted:
            raise ProviderRejectedError(
                f"dimensions: vectors of {request.model} have {len(vector)} numbers, "
                f"not {wanted}."
            )
    if tokens is None:
        return Embedded(vectors, estimate_inputs(request), estimated=True)
    return Embedded(vectors, tokens)
