"""One server for one data folder: two embedded databases would tear at each other."""

import os
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_NAME = "server.lock"
_LOCKED_BYTE = 1 << 20
"""Windows forbids others to read locked bytes: this one lies beyond the process id."""


class FolderInUseError(Exception):
    """Another process holds the folder; `pid` is 0 where it has not yet said which."""

    def __init__(self, folder: Path, pid: int) -> None:
        super().__init__(f"another Workroom server (pid {pid or '?'}) uses {folder}")
        self.folder = folder
        self.pid = pid


class FolderLock:
    """Exclusive use of a folder, for as long as this object is open.

    The kernel holds the lock, so it ends with the process, however that ends; the
    file stays. Child programs do not inherit it.
    """

    def __init__(self, folder: Path) -> None:
        """Take it or raise FolderInUseError; OSError where files cannot be locked."""
        self._file = os.open(folder / _NAME, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(self._file)
        except (BlockingIOError, PermissionError) as error:
            pid = _read_pid(self._file)
            os.close(self._file)
            raise FolderInUseError(folder, pid) from error
        except OSError:
            os.close(self._file)
            raise
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        os.write(self._file, str(os.getpid()).encode())

    def close(self) -> None:
        if self._file != -1:
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


def holder(folder: Path) -> int | None:
    """Who holds the folder: a process id, 0 where it is not known, None where none."""
    if not (folder / _NAME).exists():
        return None
    try:
        FolderLock(folder).close()
    except FolderInUseError as error:
        return error.pid
    return None


def _lock(file: int) -> None:
    if sys.platform == "win32":
        os.lseek(file, _LOCKED_BYTE, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _read_pid(file: int) -> int:
    os.lseek(file, 0, os.SEEK_SET)
    text = os.read(file, 32).decode(errors="replace")
    return int(text) if text.isdecimal() else 0
