"""Models of sentence-transformers, which embed on this very machine.

Why in a child process, and why nothing is ever downloaded:
docs/adr/0029-a-local-model-embeds-in-a-child.md.
"""

import asyncio
from array import array
from collections.abc import AsyncIterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import NamedTuple

from app.core.config import ConfigError, ModelSettings
from app.integrations.llm.base import (
    ChatRequest,
    ModelInfo,
    ProviderError,
    ProviderEvent,
    ProviderNotConfiguredError,
    ProviderRejectedError,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.embeddings import Embedded, EmbedRequest, embedded, texts_of
from app.integrations.llm.local_process import WHO, Encoder

MOST_INPUTS = 16
"""Of a call: a question waits for the one that runs, and for no other."""

_MISSING = (
    "EMBEDDING_MODEL: {} needs sentence-transformers and torch: "
    "`pip install -r requirements/torch.txt`, then "
    "`pip install --no-deps --require-hashes -r requirements/embeddings.txt`"
)


class _Call(NamedTuple):
    """Sorted by what stands first: questions go before documents."""

    is_document: bool
    number: int
    texts: list[str]
    answer: "asyncio.Future[list[array[float]]]"


class LocalProvider:
    """`local/...`: the one model that EMBEDDING_MODEL names so.

    After the slash stands its id on the Hugging Face hub, or the path of a folder:
    `local/intfloat/multilingual-e5-small`, `local//srv/models/e5`.
    """

    name = "local"

    def __init__(self, models: ModelSettings, catalogue: Catalogue) -> None:
        """Raises ConfigError where such a model is set and cannot be there."""
        self._info: ModelInfo | None = None
        if models.embedding.startswith(f"{self.name}/"):
            self._info = replace(
                catalogue.info(models.embedding),
                capabilities=frozenset({"embeddings"}),
                max_output_tokens=0,
            )
            _require(self._info)
            self._encoder = Encoder(self._info.id, patience=models.stall_seconds)
        self._broken: str | None = None
        self._calls: asyncio.PriorityQueue[_Call] = asyncio.PriorityQueue()
        self._numbers = count()
        self._worker: asyncio.Task[None] | None = None

    @property
    def missing(self) -> str | None:
        if self._info is None:
            return "No local model is set: EMBEDDING_MODEL=local/... names one."
        return self._broken

    async def models(self) -> list[ModelInfo]:
        """How long its vectors are is known once it has made some."""
        if self._info is None or self._broken:
            return []
        return [replace(self._info, dimensions=self._encoder.dimensions)]

    def stream(self, request: ChatRequest) -> AsyncIterator[ProviderEvent]:
        raise ProviderRejectedError(f"{self.name}/{request.model} does not chat.")

    def most_inputs(self, model: str) -> int:
        del model  # of any
        return MOST_INPUTS

    async def embed(self, request: EmbedRequest) -> Embedded:
        if self._info is None or self._broken:
            raise ProviderNotConfiguredError(str(self.missing))
        if request.model != self._info.id:
            raise ProviderRejectedError(f"Only {self._info.name} is loaded here.")
        answer = asyncio.get_running_loop().create_future()
        texts = texts_of(request, WHO)
        is_document = request.input_type != "query"
        self._calls.put_nowait(_Call(is_document, next(self._numbers), texts, answer))
        if self._worker is None:
            self._worker = asyncio.create_task(self._work())
        return embedded(request, WHO, await answer, None)

    async def close(self) -> None:
        if self._worker is not None:
            self._worker.cancel()
            with suppress(asyncio.CancelledError):
                await self._worker
            await self._encoder.end()

    async def _work(self) -> None:
        """One call after the other, so that who leaves breaks off nobody's answer."""
        while True:
            call = await self._calls.get()
            if call.answer.done():
                continue  # who asked has left
            try:
                made = await self._encoder.encode(
                    call.texts, is_document=call.is_document
                )
            except ProviderError as error:
                if isinstance(error, ProviderNotConfiguredError):
                    self._broken = error.detail
                if not call.answer.done():
                    call.answer.set_exception(error)
            else:
                if not call.answer.done():
                    call.answer.set_result(made)


def _require(info: ModelInfo) -> None:
    """Looks without loading: what is missing is told before the server starts."""
    if not all(map(find_spec, ("sentence_transformers", "torch"))):
        raise ConfigError(_MISSING.format(info.name))
    folder = Path(info.id)
    if folder.is_absolute() and not folder.is_dir():
        raise ConfigError(f"EMBEDDING_MODEL: {info.name}: there is no folder {folder}")
