"""start.sh's own work, with executables in Python's place that only say what they do.

`test_start.py` starts the real server.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from app.core.config import ROOT

pytestmark = pytest.mark.skipif(
    sys.platform == "win32", reason="start.bat serves there"
)

TOOLS = "sh cat cmp cp dirname grep mkdir rm sleep"

FAKE = """\
#!/bin/sh
echo "$(basename "$0") $1 $2" >> "$CALLS"
case "$1 $2" in
"-c "*"sys.exit(3)"*) case "$0" in */.venv/*) ;; *) exit {probe} ;; esac ;;
"-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && : > "$3/pyvenv.cfg" ;;
"-m pip") [ "$3" = --version ] || {pip} ;;
"-m app") shift 2; echo "served: $*"; echo "in $(pwd)" ;;
"-c "*executable*) echo "$0" ;;
*) echo 3.12 ;;
esac
"""


@dataclass
class Launcher:
    """A tree with a launcher in it, and a PATH with nothing but what we put there."""

    tree: Path
    programs: Path
    calls_file: Path

    def python(self, name: str, *, probe: int = 0, pip: str = "exit 0") -> Path:
        path = self.programs / name
        path.write_text(FAKE.format(probe=probe, pip=pip))
        path.chmod(0o755)
        return path

    def lock(self, text: str) -> None:
        (self.tree / "requirements" / "base.txt").write_text(text)

    def popen(self, *arguments: str, **environ: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [self.tree / "start.sh", *arguments],
            cwd="/",
            env={"PATH": str(self.programs), "CALLS": str(self.calls_file), **environ},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def start(
        self, *arguments: str, **environ: str
    ) -> subprocess.CompletedProcess[str]:
        self.calls_file.write_text("")
        with self.popen(*arguments, **environ) as process:
            out, err = process.communicate(timeout=60)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    @property
    def calls(self) -> list[str]:
        """What Pythons were asked to do since the last start, but for looks."""
        lines = self.calls_file.read_text().splitlines()
        return [line for line in lines if " -m " in line]


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    tree, programs = tmp_path / "a tree", tmp_path / "bin"
    (tree / "requirements").mkdir(parents=True)
    programs.mkdir()
    shutil.copy(ROOT / "start.sh", tree)
    shutil.copy(ROOT / "requirements" / "venv.sh", tree / "requirements")
    for tool in (*TOOLS.split(), "basename"):
        (programs / tool).symlink_to(str(shutil.which(tool)))
    made = Launcher(tree, programs, tmp_path / "calls")
    made.lock("fastapi==1\n")
    return made


INSTALL = ["python3.12 -m venv", "python -m pip", "python -m app"]


def wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def test_the_first_start_makes_installs_and_serves(launcher: Launcher) -> None:
    launcher.python("python3.12")

    done = launcher.start("--port", "8001")

    assert launcher.calls == INSTALL
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"workroom: making .venv with {launcher.programs / 'python3.12'}",
        "workroom: installing 1 packages into .venv (once; about half a minute)",
        "served: serve --port 8001",
        f"in {launcher.tree}",
    ]


def test_the_second_start_only_serves(launcher: Launcher) -> None:
    launcher.python("python3.12")
    launcher.start()

    done = launcher.start()

    assert launcher.calls_file.read_text() == "python -m app\n"
    assert done.stdout == f"served: serve\nin {launcher.tree}\n"


def test_a_changed_lock_is_installed_into_the_same_environment(
    launcher: Launcher,
) -> None:
    launcher.python("python3.12")
    launcher.start()
    launcher.lock("fastapi==2\n")

    launcher.start()
    assert launcher.calls == ["python -m pip", "python -m pip", "python -m app"]

    launcher.start()
    assert launcher.calls == ["python -m app"]


def test_names_that_do_not_run_are_passed_over(launcher: Launcher) -> None:
    launcher.python("python3.13", probe=127)  # as a pyenv shim without a version does
    launcher.python("python3.11", probe=3)
    launcher.python("python3")

    assert launcher.start().returncode == 0
    assert launcher.calls[0] == "python3 -m venv"


def test_the_python_that_one_names_comes_first(launcher: Launcher) -> None:
    launcher.python("python3.13")
    mine = launcher.python("mine")

    assert launcher.start(PYTHON=str(mine)).returncode == 0
    assert launcher.calls[0] == "mine -m venv"


def test_a_named_python_that_does_not_serve_is_told(launcher: Launcher) -> None:
    launcher.python("python3.12")

    done = launcher.start(PYTHON="/nowhere/python")

    assert done.returncode == 0
    assert done.stderr == (
        "workroom: PYTHON=/nowhere/python is no Python 3.11 or newer that can make "
        "environments: looking on\n"
    )


def test_no_python_is_told_in_one_line(launcher: Launcher) -> None:
    done = launcher.start()

    assert done.returncode == 1
    assert done.stderr == (
        "workroom: needs Python 3.11 or newer and finds none: install it "
        "(https://www.python.org/downloads/) or name one: "
        "PYTHON=/path/to/python ./start.sh\n"
    )


def test_only_old_pythons_are_told_by_name(launcher: Launcher) -> None:
    launcher.python("python3", probe=3)
    launcher.python("python", probe=3)

    done = launcher.start()

    assert done.returncode == 1
    assert "finds none (too old: python3 python): install it" in done.stderr
    assert not (launcher.tree / ".venv").exists()


def test_a_missing_venv_module_is_told_with_its_package(launcher: Launcher) -> None:
    launcher.python("python3", probe=4)

    done = launcher.start()

    assert done.returncode == 1
    assert done.stderr == (
        "workroom: python3 has no venv module: install it (Debian, Ubuntu: "
        "sudo apt install python3.12-venv), then start again\n"
    )


def test_a_python_with_venv_is_taken_before_a_newer_one_without(
    launcher: Launcher,
) -> None:
    launcher.python("python3.13", probe=4)
    launcher.python("python3.11")

    assert launcher.start().returncode == 0
    assert launcher.calls[0] == "python3.11 -m venv"


def test_pip_s_words_are_shown_when_it_fails(launcher: Launcher) -> None:
    launcher.python("python3.12", pip="{ echo no network >&2; exit 1; }")

    done = launcher.start()

    assert done.returncode == 1
    assert done.stderr == (
        "no network\n"
        "workroom: pip could not install requirements/base.txt (its words are above): "
        "check the network or name a package index in PIP_INDEX_URL, then start again\n"
    )
    assert "served" not in done.stdout


def test_after_a_failed_pip_the_next_start_goes_on(launcher: Launcher) -> None:
    launcher.python("python3.12", pip='[ ! -e "$OFFLINE" ]')
    offline = launcher.tree / "offline"
    offline.touch()
    assert launcher.start(OFFLINE=str(offline)).returncode == 1
    offline.unlink()

    done = launcher.start(OFFLINE=str(offline))

    assert done.returncode == 0
    assert launcher.calls == ["python -m pip", "python -m pip", "python -m app"]


@pytest.mark.parametrize(
    ("sign", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_an_interrupted_installation_is_made_anew(
    launcher: Launcher, sign: signal.Signals, code: int
) -> None:
    # An open pipe makes the first pip wait until it is ended.
    launcher.python("python3.12", pip='cat "$PIPE"; : > "$ENDED"')
    pipe, ended = launcher.tree / "pipe", launcher.tree / "ended"
    os.mkfifo(pipe)
    environ = {"PIPE": str(pipe), "ENDED": str(ended)}

    with launcher.popen(**environ) as process:
        writer = os.open(pipe, os.O_WRONLY)  # opens once pip reads
        process.send_signal(sign)
        assert process.wait(timeout=30) == code
        assert (launcher.tree / ".venv" / "unfinished").exists()
        os.close(writer)
        if sign is signal.SIGKILL:  # it could not end its pip
            wait_until(ended.exists)
    pipe.unlink()
    pipe.touch()

    assert launcher.start(**environ).returncode == 0
    assert launcher.calls == INSTALL


def test_a_start_waits_for_another_one_that_installs(launcher: Launcher) -> None:
    launcher.python("python3.12")
    (launcher.tree / ".venv").mkdir()
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as other:
        marker = launcher.tree / ".venv" / "unfinished"
        marker.write_text(f"999999999 {other.pid}\n")

        with launcher.popen() as process:
            assert process.stdout is not None
            assert process.stdout.readline() == (
                "workroom: waiting for another start that is installing "
                f"(process {other.pid})\n"
            )
            other.kill()
            other.wait()
            out, _ = process.communicate(timeout=60)

    assert process.returncode == 0
    assert "served: serve" in out


@pytest.mark.parametrize("damage", ["python", "pip", "file"])
def test_a_damaged_environment_is_made_anew(launcher: Launcher, damage: str) -> None:
    launcher.python("python3.12")
    launcher.start()
    python = launcher.tree / ".venv" / "bin" / "python"
    match damage:
        case "python":  # its base was removed
            python.unlink()
            python.symlink_to("/nowhere")
        case "pip":
            launcher.lock("fastapi==2\n")
            python.write_text("#!/bin/sh\nexit 1\n")
        case "file":
            shutil.rmtree(launcher.tree / ".venv")
            (launcher.tree / ".venv").touch()

    done = launcher.start()

    assert done.returncode == 0, done.stderr
    assert launcher.calls == INSTALL
