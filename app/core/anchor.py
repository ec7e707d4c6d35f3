"""The last heads of the audit chain, in a file.

So who can write to the database alone cannot cut the chain's end off unseen.

Head number n has a line of its own, n modulo the number of lines, so the file never
grows and processes that share it need no lock: none writes where another one does.
"""

import os
from pathlib import Path

LINES = 1024
_LINE = len(f"{0:020} {'0' * 64}\n")


class Anchor:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "audit.anchor"

    def write(self, seq: int, head: bytes) -> None:
        """Raises OSError where the file cannot be written."""
        file = os.open(self.path, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            os.lseek(file, seq % LINES * _LINE, os.SEEK_SET)
            os.write(file, f"{seq:020} {head.hex()}\n".encode())
        finally:
            os.close(file)

    def read(self) -> dict[int, bytes]:
        """Heads by their number; none where there is no file.

        Raises ValueError where a line is not one of ours.
        """
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        lines = [content[i : i + _LINE] for i in range(0, len(content), _LINE)]
        written = [line.decode() for line in lines if line.strip(b"\0")]
        return {int(line[:20]): bytes.fromhex(line[21:]) for line in written}
