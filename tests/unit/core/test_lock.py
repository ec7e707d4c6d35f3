import os
import subprocess
import sys
from pathlib import Path

import pytest

from app.core.lock import FolderInUseError, FolderLock, holder

HOLD = """
import sys
from pathlib import Path
from app.core.lock import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def test_a_folder_has_one_holder_at_a_time(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        with pytest.raises(FolderInUseError) as caught:
            FolderLock(tmp_path)
        assert caught.value.pid == os.getpid()
        assert str(caught.value) == (
            f"another Workroom server (pid {os.getpid()}) uses {tmp_path}"
        )

    FolderLock(tmp_path).close()


def test_closing_twice_is_harmless(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)

    lock.close()
    lock.close()


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert holder(tmp_path) == process.pid
        process.kill()

    assert holder(tmp_path) is None
    FolderLock(tmp_path).close()


def test_a_child_program_does_not_keep_the_lock(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        child = subprocess.Popen(
            [sys.executable, "-c", "print('running', flush=True); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            close_fds=False,
        )

    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        assert holder(tmp_path) is None
        child.kill()


def test_a_holder_that_has_not_said_who_it_is_counts(tmp_path: Path) -> None:
    with FolderLock(tmp_path):
        (tmp_path / "server.lock").write_text("")

        assert holder(tmp_path) == 0


def test_nobody_holds_a_folder_without_a_lock_file(tmp_path: Path) -> None:
    assert holder(tmp_path) is None
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_locked_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(_file: int, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)

    with pytest.raises(OSError, match="No locks available"):
        FolderLock(tmp_path)
