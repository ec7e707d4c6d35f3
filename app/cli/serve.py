"""From nothing to a listening server, and down again.

Each step that can fail tells so in one line, with the mend.
"""

import asyncio
import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from app.cli.preparing import make_folder, migrate, write_first_env
from app.cli.server import BACKLOG, Server, announce, uvicorn_config
from app.cli.terminal import fail, load_settings_or_exit, say
from app.core.config import ConfigError, ServerSettings, Settings
from app.core.lock import FolderInUseError, FolderLock


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


def refuse_workers(workers: int, settings: Settings) -> None:
    if workers > 1 and settings.redis.url is None:
        fail(
            f"--workers {workers} needs REDIS_URL, through which processes share "
            "what they know: set it, or run one"
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
    server = Server(uvicorn_config(settings, app), settings)
    try:
        server.run(sockets=[sock])
    except SystemExit:  # uvicorn's way to say that the app would not start
        fail("cannot start: the log above says why")
    say("stopped")


def _serve_with_reload(settings: Settings, sock: socket.socket) -> None:
    from uvicorn.supervisors import ChangeReload

    config = uvicorn_config(settings, "app.main:create_app", reload=True)
    ChangeReload(config, target=Server(config, settings).run, sockets=[sock]).run()


def _serve_with_workers(settings: Settings, sock: socket.socket, workers: int) -> None:
    from app.cli.workers import Supervisor

    counts = settings.server.data_dir / "metrics"
    shutil.rmtree(counts, ignore_errors=True)  # of an earlier run
    counts.mkdir(parents=True)
    # Each process counts for itself; /metrics adds up what all have written here.
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(counts)
    config = uvicorn_config(settings, "app.main:create_app", workers=workers)
    announce(settings)
    Supervisor(config, sock).run()
    say("stopped")
