"""JSON log lines, each with its request's id; nothing secret passes.

A line holds only the fields that code names. The last processor is a net under that:
a field whose name says that it is a secret is never written.
"""

import logging
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any

import orjson
import structlog

from app.core.config import LogSettings

_SECRET = re.compile("password|secret|token|authorization|cookie|api_?key")
_LINK = re.compile(r"(/shared/)[^/]+")
"""An address that is a secret itself: who has it may read."""
_COUNTS = ("input_tokens", "output_tokens", "max_tokens")


def configure(settings: LogSettings, *, debug: bool = False) -> None:
    """Send our lines and the libraries' to standard error, and to LOG_FILE if set."""
    level = logging.DEBUG if debug else logging.getLevelNamesMapping()[settings.level]
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        redact,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer(
            serializer=lambda value, **_: orjson.dumps(value, default=str).decode()
        )
        if settings.format == "json"
        else structlog.dev.ConsoleRenderer()
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            renderer,
        ],
    )
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if settings.file is not None:
        settings.file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(settings.file, encoding="utf-8"))
    root = logging.getLogger()
    for old in root.handlers:
        old.close()
    root.handlers = handlers
    for handler in handlers:
        handler.setFormatter(formatter)
    root.setLevel(level)
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=lambda *names: _Lines(_name(*names), handlers),
        cache_logger_on_first_use=True,
    )
    # The server's own access log would hold the query, and what is secret there.
    for noisy in ("apscheduler", "aiosqlite", "botocore", "asyncio", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))


class _Lines:
    """Writes finished lines to where the handlers write, and is spared their records.

    The way through the standard library costs more than the rest of a short request.
    """

    def __init__(self, name: str, handlers: Sequence[logging.Handler]) -> None:
        self.name = name
        self._handlers = handlers

    def msg(self, line: str) -> None:
        for handler in self._handlers:
            assert isinstance(handler, logging.StreamHandler)
            handler.acquire()
            try:
                # A full disk, or a terminal that is gone, ends no request.
                with suppress(OSError, ValueError):
                    handler.stream.write(line + "\n")
                    handler.flush()
            finally:
                handler.release()

    debug = info = warning = error = critical = msg


_name_of_caller = structlog.stdlib.LoggerFactory(ignore_frame_names=[__name__])


def _name(*names: str) -> str:
    return names[0] if names else _name_of_caller().name


def redact(
    _logger: Any, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for name in line:
        if _is_secret(name):
            line[name] = "[redacted]"
    if isinstance(path := line.get("path"), str):
        line["path"] = _LINK.sub(r"\1[redacted]", path)
    return line


@lru_cache
def _is_secret(name: str) -> bool:
    lowered = name.lower()
    return lowered not in _COUNTS and _SECRET.search(lowered) is not None
