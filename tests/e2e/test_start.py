"""How a server begins and ends: what it says, its exit code, and what it refuses."""

import json
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest

from app.core.config import ROOT
from tests.e2e.processes import environment, free_port

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX signals")


class Server:
    """`python -m app serve` in a folder of its own; `errors` is its standard error."""

    def __init__(self, folder: Path, *arguments: str, **settings: str) -> None:
        self.port = int(settings.setdefault("PORT", str(free_port())))
        self.errors = folder / f"errors-{self.port}"
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, *(arguments or ("-m", "app", "serve"))],
                cwd=folder,
                env=environment(settings),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()

    def await_health(self) -> None:
        end = time.monotonic() + 60
        while not self.is_healthy():
            assert self.process.poll() is None, self.errors.read_text()
            assert time.monotonic() < end, "no health in time"
            time.sleep(0.05)

    def is_healthy(self) -> bool:
        url = f"http://127.0.0.1:{self.port}/health/live"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def end(self, sign: signal.Signals = signal.SIGTERM) -> tuple[int, list[str]]:
        """Its exit code and what it printed."""
        self.process.send_signal(sign)
        return self.wait()

    def wait(self) -> tuple[int, list[str]]:
        printed, _ = self.process.communicate(timeout=60)
        return self.process.returncode, printed.splitlines()

    def refusal(self) -> tuple[int, str]:
        """The exit code and the one line of a server that does not start."""
        code, printed = self.wait()
        (line,) = [*printed, *self.errors.read_text().splitlines()]
        return code, line


@pytest.fixture
def set_up(tmp_path: Path) -> Path:
    """A folder whose `.env` is there already."""
    (tmp_path / ".env").write_text("SECRET_KEY=correct horse battery staple, 01234\n")
    return tmp_path


def test_a_first_start_writes_keys_migrates_serves_and_ends_well(
    tmp_path: Path,
) -> None:
    with Server(tmp_path) as server:
        server.await_health()

        code, printed = server.end()

    assert code == 0, server.errors.read_text()
    address = f"http://127.0.0.1:{server.port}"
    assert printed == [
        "workroom: wrote .env with fresh keys; .env.example tells every setting",
        f"workroom: Workroom is at {address}  (API docs /docs, Ctrl+C stops)",
        "workroom: stopping; Ctrl+C again ends it at once",
        "workroom: stopped",
    ]
    assert stat.S_IMODE((tmp_path / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "data").stat().st_mode) == 0o700
    log = [json.loads(line) for line in server.errors.read_text().splitlines()]
    assert not [line for line in log if line["level"] in {"warning", "error"}]


def test_a_later_start_leaves_dot_env_alone_and_ctrl_c_ends_it_well(
    set_up: Path,
) -> None:
    before = (set_up / ".env").read_bytes()
    with Server(set_up, str(ROOT / "main.py")) as server:
        server.await_health()

        code, printed = server.end(signal.SIGINT)

    assert code == 0
    assert printed[-1] == "workroom: stopped"
    assert (set_up / ".env").read_bytes() == before


def test_one_folder_has_one_server_until_that_is_killed(set_up: Path) -> None:
    with ExitStack() as stack:
        first = stack.enter_context(Server(set_up))
        first.await_health()

        second = stack.enter_context(Server(set_up))
        code, line = second.refusal()
        assert code == 1
        assert line == (
            f"workroom: another Workroom server (pid {first.process.pid}) uses this "
            "data folder, data: end it, or name another folder in DATA_DIR"
        )

        first.process.kill()
        first.wait()
        third = stack.enter_context(Server(set_up))
        third.await_health()


def test_a_taken_port_is_told_with_the_mend(set_up: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]

        with Server(set_up, PORT=str(port)) as server:
            code, line = server.refusal()

    assert code == 1
    assert line == (
        f"workroom: port {port} is taken: end what uses it, or take another: "
        f"PORT={port + 1} ./start.sh"
    )


def test_a_data_folder_that_cannot_be_made_is_told(set_up: Path) -> None:
    (set_up / "file").touch()

    with Server(set_up, DATA_DIR="file/data") as server:
        code, line = server.refusal()

    assert code == 1
    assert line.startswith("workroom: DATA_DIR: cannot write into file/data (Not a ")


def test_production_never_makes_its_own_keys(tmp_path: Path) -> None:
    with Server(tmp_path, ENVIRONMENT="production", SECRET_KEY="short") as server:
        code, printed = server.wait()

    problems = server.errors.read_text().splitlines()
    assert (code, printed) == (2, [])
    assert [problem.split(": ")[1] for problem in problems] == [
        "ALLOWED_HOSTS",
        "SECRET_KEY",
        "ENCRYPTION_KEY",
    ]
    assert not (tmp_path / ".env").exists()


@pytest.mark.parametrize(
    ("variable", "value", "exit_code"),
    [
        ("LOG_FILE", "/dev/null/log", 1),
        ("MODEL_CATALOGUE", "nowhere.toml", 2),
        ("EMBEDDING_MODEL", "local//nowhere", 2),
    ],
)
def test_a_file_that_is_no_good_is_told(
    set_up: Path, variable: str, value: str, exit_code: int
) -> None:
    with Server(set_up, **{variable: value}) as server:
        code, line = server.refusal()

    assert code == exit_code
    assert line.startswith(f"workroom: {variable}: ")


def test_an_app_that_cannot_start_exits_with_one(set_up: Path) -> None:
    (set_up / "broken.py").write_text(
        "from app.cli import main\n"
        "from app.services.chat.turns import Turns\n"
        "async def fail(*_, **__): raise RuntimeError('no')\n"
        "Turns.open = fail\n"
        "main(['serve'])\n"
    )
    with Server(set_up, "broken.py") as server:
        code, printed = server.wait()

    assert (code, printed) == (1, [])
    last = server.errors.read_text().splitlines()[-1]
    assert last == "workroom: cannot start: the log above says why"


def test_with_reload_the_port_is_kept_and_the_end_is_good(set_up: Path) -> None:
    with Server(set_up, "-m", "app", "serve", "--reload") as server:
        server.await_health()

        code, printed = server.end()

    assert code == 0
    assert printed[-1] == "workroom: stopping; Ctrl+C again ends it at once"
