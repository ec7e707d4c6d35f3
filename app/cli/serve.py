"""From nothing to a listening server, and down again.

Each step that can fail tells so in one line, with the mend.
"""

import asyncio
import errno
import gc
import math
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import uvicorn

from app.cli.connection import Connection
from app.cli.terminal import fail, load_settings_or_exit, reason, say
from app.core.config import ROOT, ConfigError, ServerSettings, Settings, is_first_start
from app.core.env_example import fresh_keys
from app.core.lock import FolderInUseError, FolderLock

if TYPE_CHECKING:
    from app.core.database import Database

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75
"""Longer than the 60 s of common proxies, so that they close idle connections first."""

_CLAIM_SECONDS = 5
"""A database may take a moment to notice that a server was killed."""

_TICK = 0.05


def run(*, host: str | None, port: int | None, workers: int, reload: bool) -> None:
    # Through the environment, so that a reloaded process has them too.
    os.environ |= {"HOST": host} if host else {}
    os.environ |= {"PORT": str(port)} if port is not None else {}
    write_first_env()
    settings = load_settings_or_exit()
    refuse_workers(workers, settings)
    make_folder(settings.server.data_dir, "DATA_DIR")
    if settings.log.file:
        make_folder(settings.log.file.parent, "LOG_FILE")
    # The lock comes before the port: a second start should hear of the first one.
    with lock(settings.server.data_dir), closing(listen(settings.server)) as sock:
        migrate(settings)
        refuse_wrong_keys(settings)
        make_first_admin(settings)
        if reload:
            _serve_with_reload(settings, sock)
        elif workers > 1:
            _serve_with_workers(settings, sock, workers)
        else:
            _serve(settings, sock)


def write_first_env() -> None:
    """Write `.env` with fresh keys, where nothing has been set up yet."""
    try:
        if is_first_start() and _write_new(Path(".env"), _first_env()):
            say("wrote .env with fresh keys; .env.example tells every setting")
    except ConfigError as error:
        fail(str(error), code=2)
    except OSError as error:
        fail(
            f"cannot write .env into {Path.cwd()} ({error.strerror}): make the folder "
            "writable, or set SECRET_KEY and ENCRYPTION_KEY in the environment"
        )


def _first_env() -> str:
    lines = (f"{name}={value}\n" for name, value in fresh_keys().items())
    return "# Made by the first start. .env.example tells every setting.\n" + "".join(
        lines
    )


def _write_new(path: Path, text: str) -> bool:
    """Write a file for the owner's eyes; whole or not at all, never over another."""
    descriptor, temporary = tempfile.mkstemp(prefix=".env.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        Path(temporary).unlink()


def refuse_workers(workers: int, settings: Settings) -> None:
    if workers > 1 and settings.redis.url is None:
        fail(
            f"--workers {workers} needs REDIS_URL, through which processes share "
            "what they know: set it, or run one"
        )


def make_folder(folder: Path, variable: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"can be written")
    except OSError as error:
        fail(
            f"{variable}: cannot write into {folder} ({error.strerror}): name a place "
            "that this user may write"
        )


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    try:
        taken = FolderLock(folder)
    except FolderInUseError as error:
        fail(
            f"another Workroom server (pid {error.pid or '?'}) uses this data folder, "
            f"{folder}: end it, or name another folder in DATA_DIR"
        )
    except OSError as error:
        fail(
            f"DATA_DIR: cannot lock a file in {folder} ({error.strerror}): name a "
            "folder on a local disk"
        )
    with taken:
        yield


def listen(server: ServerSettings) -> socket.socket:
    """Take the port for good: what connects from now on waits for the server."""
    try:
        return open_port(server)
    except OSError as error:
        fail(why_not(server, error))


def open_port(server: ServerSettings) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        server.host, server.port, type=socket.SOCK_STREAM
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        if os.name == "posix":  # elsewhere it would let two servers share a port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def why_not(server: ServerSettings, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        other = server.port + 1 if server.port < 65535 else 8000  # noqa: PLR2004 - the last port
        return (
            f"port {server.port} is taken: end what uses it, or take another: "
            f"PORT={other} ./start.sh"
        )
    if error.errno == errno.EACCES:
        return (
            f"this user may not listen on port {server.port}: take one above 1023: "
            "PORT=8000 ./start.sh"
        )
    return (
        f"HOST: cannot listen on {server.host} ({error.strerror}): use an address of "
        "this machine, such as 127.0.0.1 or 0.0.0.0"
    )


def migrate(settings: Settings) -> None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.migrations import MigrationError, upgrade

    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        make_folder(Path(url.database).parent, "DATABASE_URL")
    try:
        upgrade(settings)
    except MigrationError as error:
        fail(str(error))
    except (SQLAlchemyError, OSError) as error:
        fail(f"DATABASE_URL: the database cannot be used: {reason(error)}")


def refuse_wrong_keys(settings: Settings) -> None:
    """Say in one line what the server itself would refuse with a traceback."""
    try:
        asyncio.run(_require_key(settings))
    except ConfigError as error:
        fail(str(error), code=2)


async def _require_key(settings: Settings) -> None:
    from app.core.crypto import Crypto
    from app.core.database import Database
    from app.services.audit.chain import require_key

    database = Database(settings)
    try:
        await require_key(database, Crypto(settings.security))
    finally:
        await database.close()


def make_first_admin(settings: Settings) -> None:
    if settings.desk.admin_email is not None:
        from app.cli.admin import create_first

        create_first(settings)


def _serve(settings: Settings, sock: socket.socket) -> None:
    from app.main import create_app

    try:
        app = create_app(settings)
    except ConfigError as error:  # a file that a setting names is wrong
        fail(str(error), code=2)
    server = Server(_uvicorn_config(settings, app), settings)
    try:
        server.run(sockets=[sock])
    except SystemExit:  # uvicorn's way to say that the app would not start
        fail("cannot start: the log above says why")
    say("stopped")


def _serve_with_reload(settings: Settings, sock: socket.socket) -> None:
    from uvicorn.supervisors import ChangeReload

    config = _uvicorn_config(settings, "app.main:create_app", reload=True)
    ChangeReload(config, target=Server(config, settings).run, sockets=[sock]).run()


def _serve_with_workers(settings: Settings, sock: socket.socket, workers: int) -> None:
    from app.cli.workers import Supervisor

    counts = settings.server.data_dir / "metrics"
    shutil.rmtree(counts, ignore_errors=True)  # of an earlier run
    counts.mkdir(parents=True)
    # Each process counts for itself; /metrics adds up what all have written here.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counts)
    config = _uvicorn_config(settings, "app.main:create_app", workers=workers)
    _announce(settings)
    Supervisor(config, sock).run()
    say("stopped")


def _announce(settings: Settings) -> None:
    server = settings.server
    docs = "API docs /docs, " if server.shows_docs else ""
    say(f"{server.app_name} is at {server.url}  ({docs}Ctrl+C stops)")


def _uvicorn_config(
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
            _announce(self._settings)

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
