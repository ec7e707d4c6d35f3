"""A stand-in for Workroom that speaks the real protocol, and counts."""

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import pytest
from workroom_auth import WorkroomAuth

SERVICE_KEY = "wrs_000000000000_secret"
SUB = "01900000-0000-7000-8000-000000000001"
SID = "01900000-0000-7000-8000-000000000002"
INACTIVE = {"active": False}


def active(**fields: Any) -> dict[str, Any]:
    return {
        "active": True,
        "sub": SUB,
        "sid": SID,
        "kind": "user",
        "username": "ada",
        "plan": "free",
        "scope": "*",
        "exp": int(time.time()) + 600,
        **fields,
    }


class FakeWorkroom:
    """`answers` are what it tells of each token; `status` what it says instead."""

    def __init__(self) -> None:
        self.answers: dict[str, dict[str, Any]] = {}
        self.status = 200
        self.asked: list[dict[str, str]] = []
        self.reports: list[dict[str, Any]] = []
        self.opened: list[socket.socket] = []
        self.gate = threading.Event()
        """Closed, every answer waits."""
        self.gate.set()
        self._server: ThreadingHTTPServer | None = None
        self._port = 0
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def connections(self) -> int:
        """How many were ever made."""
        return len(self.opened)

    def start(self) -> None:
        fake = self

        class Handler(_Handler):
            workroom = fake

        self._server = ThreadingHTTPServer(("127.0.0.1", self._port), Handler)
        self._server.daemon_threads = True
        self._port = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, args=(0.01,), daemon=True
        ).start()

    def stop(self) -> None:
        """Be gone: connections are refused."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for opened in self.opened:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        self.gate.wait()
        if path == "/api/v1/usage/report":
            if self.status == 200:
                self.reports += json.loads(body)["reports"]
            return self.status, {"booked": 1, "unknown": []}
        form = {name: values[0] for name, values in parse_qs(body.decode()).items()}
        self.asked.append(form)
        return self.status, self.answers.get(form["token"], INACTIVE)


class _Handler(BaseHTTPRequestHandler):
    workroom: FakeWorkroom
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.workroom.opened.append(self.request)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert self.headers["Authorization"] == f"Bearer {SERVICE_KEY}"
        status, told = self.workroom.answer(self.path, body)
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def workroom() -> Iterator[FakeWorkroom]:
    fake = FakeWorkroom()
    yield fake
    fake.gate.set()
    fake.stop()


Connect = Callable[..., WorkroomAuth]


@pytest.fixture
def connect(workroom: FakeWorkroom) -> Iterator[Connect]:
    """Makes clients that are closed at the end."""
    made: list[WorkroomAuth] = []

    def make(**options: Any) -> WorkroomAuth:
        made.append(WorkroomAuth(workroom.url, SERVICE_KEY, **options))
        return made[-1]

    yield make
    workroom.gate.set()
    for auth in made:
        auth.close()
