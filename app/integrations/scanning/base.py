"""The port to what looks for viruses."""

from collections.abc import AsyncIterator
from typing import Protocol

from app.core.exceptions import UnavailableError


class ScannerError(UnavailableError):
    """It cannot be reached, or does not take what it is sent."""

    code = "scanner_unavailable"


class ScannerRefusedError(ScannerError):
    """It does not take this file, such as one that is too long for it."""


class Scanner(Protocol):
    @property
    def scans(self) -> bool:
        """Whether there is one at all."""

    async def scan(self, chunks: AsyncIterator[bytes]) -> str | None:
        """The name of what was found; None where nothing was."""


class NoScanner:
    """Of an installation that has none."""

    scans = False

    async def scan(self, chunks: AsyncIterator[bytes]) -> str | None:
        del chunks
        return None
