"""JSON log lines, each with its request's id; nothing secret passes.

A line holds only the fields that code names. The last processor is a net under that:
a field whose name says that it is a secret is never written.
"""

import asyncio
import atexit
import logging
import re
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import orjson
import structlog

from app.core.config import LogSettings

_SECRET = re.compile("password|secret|token|authorization|cookie|api_?key")
_LINK = re.compile(r"(/shared/)[^/]+")
"""An address that is a secret itself: who has it may read."""
_MOMENT = 0.02  # seconds
_COUNTS = ("input_tokens", "output_tokens", "max_tokens")

about: ContextVar[Mapping[str, Any]] = ContextVar("log_about", default={})  # noqa: B039 - nobody changes it
"""What every line of a task has: its request's id, or its job's."""


def configure(settings: LogSettings, *, debug: bool = False) -> None:
    """Send our lines and the libraries' to standard error, and to LOG_FILE if set."""
    level = logging.DEBUG if debug else logging.getLevelNamesMapping()[settings.level]
    shared: list[structlog.typing.Processor] = [
        _with_about,
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
    handlers: list[logging.StreamHandler[Any]] = [logging.StreamHandler(sys.stderr)]
    if settings.file is not None:
        settings.file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(settings.file, encoding="utf-8"))
    sink = _Sink(handlers)
    named = structlog.stdlib.LoggerFactory(ignore_frame_names=[__name__])
    json = settings.format == "json"
    structlog.configure(
        processors=[_json_line] if json else [*shared, renderer],
        wrapper_class=_logger(level, direct=json),
        logger_factory=lambda *names: _Lines(named(*names).name, sink),
    )
    root = logging.getLogger()
    for old in root.handlers:
        old.close()
    root.handlers = [*handlers]
    for handler in handlers:
        handler.setFormatter(formatter)
    root.setLevel(level)
    # The server's own access log would hold the query, and what is secret there.
    for noisy in ("apscheduler", "aiosqlite", "botocore", "asyncio", "uvicorn.access"):
        logging.getLogger(noisy).setLevel(max(level, logging.WARNING))


def _logger(level: int, *, direct: bool) -> type[Any]:
    """The class of loggers; a line of level info, as a request has, may go direct."""
    usual: Any = structlog.make_filtering_bound_logger(level)
    if not direct or level > logging.INFO:
        return usual  # type: ignore[no-any-return]  # the library makes it

    class Direct(usual):  # type: ignore[misc]  # the same
        def info(self, event: str, **fields: Any) -> None:
            told = {**about.get(), **self._context, "event": event, **fields}
            self._logger.msg(_finished(self._logger, "info", told))

    return Direct


def _json_line(logger: Any, method: str, line: structlog.typing.EventDict) -> str:
    """What the processors of the libraries' lines do, in one step: a fifth of the time.

    Every request has a line.
    """
    return _finished(logger, method, {**about.get(), **line})


def _finished(logger: Any, method: str, told: dict[str, Any]) -> str:
    """Adds what each line has."""
    told["level"] = method
    told["logger"] = logger.name
    told["timestamp"] = _timestamp()
    if "exc_info" in told:
        told = dict(structlog.processors.format_exc_info(logger, method, told))
    return orjson.dumps(redact(logger, method, told), default=str).decode()


def _with_about(
    _logger: Any, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    return {**about.get(), **line}


def _timestamp() -> str:
    """Now, as ISO 8601 with microseconds."""
    seconds, micro = divmod(time.time_ns() // 1000, 1_000_000)
    return f"{_second(seconds)}.{micro:06d}Z"


@lru_cache(1)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


class _Sink:
    """Writes lines to where the libraries' go, without their records: one costs 20 us.

    What is written within a moment goes out together: the lines of many requests are
    one call of the system. A warning does not wait, nor what was written before it. A
    line that cannot be written, on a full disk for example, is lost in silence: it must
    not end the request that it tells of.
    """

    def __init__(self, handlers: Sequence[logging.StreamHandler[Any]]) -> None:
        self._handlers = handlers
        self._waiting: list[str] = []
        self._flushes_in: asyncio.AbstractEventLoop | None = None
        atexit.register(self.flush)

    def put(self, line: str) -> None:
        self._waiting.append(line)
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # none in this thread
            self.flush()
            return
        if len(self._waiting) == 1 or loop is not self._flushes_in:
            self._flushes_in = loop
            loop.call_later(_MOMENT, self.flush)

    def flush(self) -> None:
        lines, self._waiting = self._waiting, []
        if not lines:
            return
        text = "".join(f"{line}\n" for line in lines)
        for handler in self._handlers:
            handler.acquire()
            try:
                handler.stream.write(text)
                handler.stream.flush()
            except (OSError, ValueError):
                continue
            finally:
                handler.release()


class _Lines:
    """What structlog calls a logger."""

    def __init__(self, name: str, sink: _Sink) -> None:
        self.name = name
        self._sink = sink
        self.msg = self.debug = self.info = sink.put

    def warning(self, line: str) -> None:
        """At once: the process may be about to end."""
        self._sink.put(line)
        self._sink.flush()

    error = critical = warning


def redact(
    _logger: Any, _method: str, line: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    for name in _secrets(tuple(line)):
        line[name] = "[redacted]"
    path = line.get("path")
    if isinstance(path, str) and "/shared/" in path:
        line["path"] = _LINK.sub(r"\1[redacted]", path)
    return line


@lru_cache
def _secrets(names: Iterable[str]) -> list[str]:
    """Those that say so; lines of one kind have the same names."""
    return [name for name in names if _is_secret(name)]


def _is_secret(name: str) -> bool:
    lowered = name.lower()
    return lowered not in _COUNTS and _SECRET.search(lowered) is not None
