"""The real server as a program: started, waited for, ended by signals.

What is started here is ended here, by its process id, and never by a name.
"""

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from pathlib import Path
from typing import TypeVar

import aiohttp

from app.core.config import ROOT
from tests.client import Answer, Client
from tests.conftest import UNLIMITED

PATIENCE = 30
"""Seconds that anything here may take, on a slow and busy machine."""

TICK = 0.02

T = TypeVar("T")

PASSWORD = "seven copper kettles"

_INHERITED = ("PATH", "HOME", "LANG", "TMPDIR", "SYSTEMROOT")
_BRISK = {
    "SECRET_KEY": "a secret key that is only for tests",
    "BCRYPT_ROUNDS": "4",
    "REFRESH_GRACE_SECONDS": "0",
    "TURN_CHECKPOINT_SECONDS": "0.2",
    "JOB_POLL_SECONDS": "0.2",
    "LOG_LEVEL": "INFO",
    **UNLIMITED,
}


async def until(
    condition: Callable[[], Awaitable[T]], what: str, seconds: float = PATIENCE
) -> T:
    """Wait until `condition()` gives something true, and give that."""
    end = time.monotonic() + seconds
    while not (found := await condition()):
        assert time.monotonic() < end, f"waited {seconds} s in vain for {what}"
        await asyncio.sleep(TICK)
    return found


def free_port() -> int:
    """A port that nobody listens on, outside of those that clients get by chance."""
    while True:
        port = random.SystemRandom().randint(20_000, 32_000)
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def environment(settings: Mapping[str, str]) -> dict[str, str]:
    """All the variables a program of ours gets: what it must have, and `settings`."""
    inherited = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    # Where this run is measured, so is the server.
    measured = {k: v for k, v in os.environ.items() if k.startswith("COVERAGE_")}
    ours = {"PYTHONPATH": str(ROOT), "OLLAMA_BASE_URL": "off"}
    return {**inherited, **measured, **ours, **settings}


class Server:
    """`python -m app serve` in a folder of its own.

    It may be ended and started again, as often as a test wants, over the same data and
    at the same address. `log` is all that its processes printed.
    """

    def __init__(
        self, http: aiohttp.ClientSession, folder: Path, **settings: str
    ) -> None:
        self.folder = folder
        self.settings = {**_BRISK, "PORT": str(free_port()), **settings}
        self.url = f"http://127.0.0.1:{self.settings['PORT']}"
        self.arguments: list[str] = []
        self._http = http
        self._log = folder / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count(1)
        self._looked_at = 0

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def complaints(self) -> list[str]:
        """What its log says went wrong inside, since the last call: nothing should."""
        lines = self.log.splitlines()[self._looked_at :]
        self._looked_at += len(lines)
        bad = ('"level":"error"', '"level":"critical"', "Traceback")
        return [
            line
            for line in lines
            if any(b in line for b in bad) and not self._is_of_an_outage(line)
        ]

    def _is_of_an_outage(self, line: str) -> bool:
        """Whether it tells what a stop without a database has to lose."""
        lost = (
            "message logs lost",
            "credits not settled",
            "Exception closing connection",  # SQLAlchemy's, where nobody answers
        )
        return "database_unavailable" in self.log and any(what in line for what in lost)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def spawn(self) -> None:
        """Start it, without waiting."""
        assert not self.running
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "app", "serve", *self.arguments],
                cwd=self.folder,
                env=environment({"DATA_DIR": "data", **self.settings}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    async def start(self) -> None:
        self.spawn()
        await self.ready()

    async def ready(self) -> None:
        await until(self.is_ready, "the server to be ready")

    async def is_ready(self) -> bool:
        assert self.running, f"the server has ended:\n{self.log}"
        try:
            return (await self.anonymous().get("/health/ready")).status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def kill(self) -> None:
        """`kill -9`: it has no time for anything."""
        assert self._process is not None
        self._process.kill()
        await self.exit_code()

    def send(self, sign: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(sign)

    async def exit_code(self) -> int:
        """Wait for its end."""
        process = self._process
        assert process is not None
        await until(lambda: _ended(process), "the server's end")
        return int(process.returncode)

    async def stop(self) -> None:
        """End it, however it takes that; not running, do nothing."""
        if self.running:
            self.send(signal.SIGTERM)
            try:
                await self.exit_code()
            except AssertionError:
                await self.kill()
                raise

    def anonymous(self) -> Client:
        return Client(self._http, self.url)

    def as_before(self, client: Client) -> Client:
        """Another client of the same session, for instance in another tab."""
        again = self.anonymous()
        again.use(client.tokens)
        return again

    async def client(self) -> Client:
        """A client that is logged in as a new user."""
        client = self.anonymous()
        email = f"user-{next(self._names)}@example.com"
        answer = await client.post(
            "/auth/register", json={"email": email, "password": PASSWORD}
        )
        assert answer.status == 201, answer.body
        await client.login(email, PASSWORD)
        return client

    async def health(self) -> Answer:
        """With its details, as they are told on the machine itself."""
        return await self.anonymous().get("/health")


async def _ended(process: "subprocess.Popen[bytes]") -> bool:
    return process.poll() is not None
