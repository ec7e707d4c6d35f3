"""The child process that a local model runs in, as its parent sees it.

It is begun by the first call, and anew by the one after its death. It ends with its
standard input, and so with its parent, however that ends.
"""

import asyncio
import sys
import tempfile
from array import array
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from os import SEEK_END
from typing import IO, NamedTuple

import orjson
import structlog

from app.core.config import ROOT, passed_on
from app.integrations.llm.base import (
    ProviderNotConfiguredError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)

WHO = "The local model"

_NUMBER = "f"
"""Of `array`: 4 bytes, in this machine's order, as the child writes them."""

_MOST_SAID = 2000  # bytes

_PASSED_ON = (
    *("PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "LANG", "TMPDIR", "TEMP", "TMP"),
    *("HOME", "USERPROFILE", "LOCALAPPDATA", "SYSTEMROOT", "XDG_CACHE_HOME"),
    *("HF_HOME", "HF_HUB_CACHE", "SENTENCE_TRANSFORMERS_HOME"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES"),
)
"""All that it gets of the environment: keys of ours are no library's business."""

_log = structlog.get_logger()


class _Child(NamedTuple):
    process: Process
    stdin: asyncio.StreamWriter
    stdout: asyncio.StreamReader
    errors: IO[bytes]


class Encoder:
    """Takes one call at a time. `patience` is how many seconds it may take."""

    def __init__(self, model: str, *, patience: float) -> None:
        self._model = model
        self._patience = patience
        self._child: _Child | None = None
        self.dimensions: int | None = None
        """As the model tells when it is loaded."""

    async def encode(
        self, texts: Sequence[str], *, is_document: bool
    ) -> "list[array[float]]":
        """A vector for each text, in their order.

        Raises ProviderNotConfiguredError where the model cannot be loaded,
        ProviderTimeoutError, and ProviderUnavailableError where the child died.
        """
        asked = orjson.dumps({"texts": texts, "is_document": is_document})
        try:
            async with asyncio.timeout(self._patience):
                child = self._child or await self._start()
                child.stdin.write(asked + b"\n")
                await child.stdin.drain()
                return await _vectors(child.stdout)
        except TimeoutError:
            await self.end()
            raise ProviderTimeoutError(
                f"{WHO} took longer than {self._patience:g} s."
            ) from None
        except (OSError, EOFError) as error:
            _log.warning("local model died", model=self._model, error=self._said())
            await self.end()
            raise ProviderUnavailableError(f"{WHO} died at its work.") from error

    async def end(self) -> None:
        child, self._child = self._child, None
        if child is None:
            return
        with suppress(ProcessLookupError):
            child.process.kill()
        await child.process.wait()
        child.errors.close()

    async def _start(self) -> _Child:
        errors = await asyncio.to_thread(tempfile.TemporaryFile)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app.integrations.llm.local_child",
            self._model,
            cwd=ROOT,
            env=passed_on(_PASSED_ON),
            stdin=PIPE,
            stdout=PIPE,
            stderr=errors,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        self._child = child = _Child(process, process.stdin, process.stdout, errors)
        loaded = await child.stdout.readline()
        if not loaded:
            await process.wait()
            _log.error("local model not loaded", model=self._model, error=self._said())
            await self.end()
            raise ProviderNotConfiguredError(
                f"EMBEDDING_MODEL: local/{self._model} cannot be loaded: the log tells "
                "why. A model of the hub must have been downloaded: "
                f"`hf download {self._model}`."
            )
        self.dimensions = orjson.loads(loaded)["dimensions"]
        return child

    def _said(self) -> str:
        """The end of what the child wrote to its standard error."""
        if self._child is None:
            return ""
        errors = self._child.errors
        errors.seek(max(0, errors.seek(0, SEEK_END) - _MOST_SAID))
        return errors.read().decode(errors="replace")


async def _vectors(stdout: asyncio.StreamReader) -> "list[array[float]]":
    """One answer: a line that tells how many numbers in how many rows follow it."""
    head = await stdout.readline()
    if not head:
        raise EOFError
    told = orjson.loads(head)
    size = told["width"] * array(_NUMBER).itemsize
    numbers = await stdout.readexactly(told["rows"] * size)
    return [
        array(_NUMBER, numbers[at : at + size]) for at in range(0, len(numbers), size)
    ]
