"""Parsers run in a child process: what they do to it, they do to nobody else.

It gets nothing of our environment, a limit of time and one of memory, and can write no
large files. It ends with its answer on its standard output, or it is ended.
"""

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import structlog

from app.core.config import ROOT, StorageSettings
from app.integrations.parsing.base import (
    SCALED_NAME,
    TEXT_NAME,
    THUMBNAIL_NAME,
    Parsed,
    UnreadableFileError,
)

_AT_ONCE = 2
"""Children of one process: each may take all of its memory."""

_ENVIRONMENT = {
    "PYTHONPATH": str(ROOT),
    "PYTHONDONTWRITEBYTECODE": "1",
    # It may begin no thread, and numpy, which openpyxl loads, would begin many.
    "OPENBLAS_NUM_THREADS": "1",
}
"""All of it: nothing of ours is a parser's business."""

_log = structlog.get_logger()


class Parser:
    def __init__(self, settings: StorageSettings) -> None:
        self._seconds = settings.parse_seconds
        self._bytes = settings.parse_bytes
        self._slots = asyncio.Semaphore(_AT_ONCE)

    async def parse(self, path: Path, mime: str, folder: Path) -> Parsed:
        """Look into the file; what else comes of it is written into `folder`.

        Raises UnreadableFileError for one that is not what `mime` says, is broken or
        encrypted, or takes too much.
        """
        async with self._slots:
            answer = await self._run(path, mime, folder)
        if (reason := answer.get("reason")) is not None:
            raise UnreadableFileError(reason)
        text = _written(folder, TEXT_NAME)
        return Parsed(
            text=await asyncio.to_thread(_read, text) if text else None,
            thumbnail=_written(folder, THUMBNAIL_NAME),
            scaled=_written(folder, SCALED_NAME),
            **answer,
        )

    async def _run(self, path: Path, mime: str, folder: Path) -> dict[str, Any]:
        child = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "app.integrations.parsing.child",
            str(path),
            mime,
            str(folder),
            str(self._seconds),
            str(self._bytes),
            cwd=folder,
            env=_ENVIRONMENT,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
        )
        try:
            async with asyncio.timeout(self._seconds):
                out, errors = await child.communicate()
        except TimeoutError:
            return {"reason": f"takes longer than {self._seconds} s to be read"}
        finally:
            await _end(child)
        if child.returncode == 0:
            answer: dict[str, Any] = orjson.loads(out)
            return answer
        _log.warning(
            "parser died",
            mime=mime,
            returncode=child.returncode,
            error=errors.decode(errors="replace")[-2000:],
        )
        return {"reason": "takes too much time or memory to be read, or is broken"}


def _written(folder: Path, name: str) -> Path | None:
    path = folder / name
    return path if path.exists() else None


def _read(path: Path) -> str:
    return path.read_bytes().decode()


async def _end(child: Process) -> None:
    if child.returncode is None:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
