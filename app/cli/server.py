"""uvicorn's server, as ours: how it is set, how it begins and how it ends."""

import asyncio
import gc
import math
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from app.cli.connection import Connection
from app.cli.terminal import say
from app.core.config import ROOT, Settings

if TYPE_CHECKING:
    from app.core.database import Database

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s of common proxies, so that they close idle connections first."""

_CLAIM_SECONDS = 5
"""A database may take a moment to notice that a server was killed."""

_TICK = 0.05


def uvicorn_config(
    settings: Settings, application: object, *, reload: bool = False, workers: int = 1
) -> uvicorn.Config:
    return uvicorn.Config(
        application,  # type: ignore[arg-type]  # FastAPI's or Starlette's, or its name
        factory=isinstance(application, str),
        reload=reload,
        reload_dirs=[str(ROOT / "app")] if reload else None,
        workers=workers,
        loop="auto",  # uvloop where there is one
        http=Connection,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=math.ceil(settings.server.shutdown_seconds) + 5,
    )


def announce(settings: Settings) -> None:
    server = settings.server
    docs = "API docs /docs, " if server.shows_docs else ""
    say(f"{server.app_name} is at {server.url}  ({docs}Ctrl+C stops)")


async def _claim(database: "Database") -> None:
    """Refuse to share a database with a server that would never hear of us."""
    deadline = time.monotonic() + _CLAIM_SECONDS
    while not await database.claim():
        if time.monotonic() > deadline:
            say(
                "another Workroom server uses this database: end it, or set REDIS_URL "
                "for both, through which processes share what they know"
            )
            sys.exit(1)
        await asyncio.sleep(_TICK)


class Server(uvicorn.Server):
    """Tells people where it is, and the app that the end has begun."""

    def __init__(
        self, config: uvicorn.Config, settings: Settings, *, announce: bool = True
    ) -> None:
        """`announce` where this is the only one to speak."""
        super().__init__(config)
        self._settings = settings
        self._speaks = announce

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        runtime = self.config.loaded_app.state.runtime
        if runtime.alone:
            await _claim(runtime.database)
        await super().startup(sockets)
        # What is loaded now stays: full collections need not walk through it again.
        gc.collect()
        gc.freeze()
        # Nearly all that requests leave goes without it: it need not look so often.
        gc.set_threshold(50_000, 20, 20)
        if self._speaks:
            announce(self._settings)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Running replies must hear of the end before connections are waited for.
        with suppress(AttributeError):  # a signal before the app has been made
            self.config.loaded_app.state.shutdown.begin()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._speaks:
            say("stopping; Ctrl+C again ends it at once")
        # Until the replies have ended the port stays open: readers may come back, and
        # whoever wants more hears a 503 that says when to try again.
        turns = self.config.loaded_app.state.runtime.turns
        while turns.running and not self.force_exit:  # noqa: ASYNC110 - its flag has no event
            await asyncio.sleep(_TICK)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # uvicorn raises them again, to end as if killed; ours is a good end.
            self._captured_signals.clear()
