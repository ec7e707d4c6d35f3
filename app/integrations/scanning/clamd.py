"""ClamAV's daemon.

Reference: INSTREAM in clamd(8). Each chunk has its length before it, in four bytes, the
most significant first; one of no length ends them.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

from app.integrations.scanning.base import ScannerError, ScannerRefusedError

_SECONDS = 120
_FOUND = re.compile(r"stream: (.+) FOUND")


class Clamd:
    scans = True

    def __init__(self, address: str) -> None:
        """`address` is host:port, or the path of a socket."""
        self._address = address

    async def scan(self, chunks: AsyncIterator[bytes]) -> str | None:
        """Raises ScannerError; ScannerRefusedError for a stream that is too long."""
        try:
            async with asyncio.timeout(_SECONDS):
                answer = await self._ask(chunks)
        except (OSError, TimeoutError) as error:
            raise ScannerError("The virus scanner does not answer.") from error
        if answer == "stream: OK":
            return None
        if (found := _FOUND.fullmatch(answer)) is not None:
            return found[1]
        raise ScannerRefusedError("The virus scanner did not take the file.")

    async def _ask(self, chunks: AsyncIterator[bytes]) -> str:
        reader, writer = await self._connect()
        try:
            writer.write(b"zINSTREAM\0")
            # It hangs up as soon as it has an answer, or enough.
            with suppress(ConnectionError):
                async for chunk in chunks:
                    writer.write(len(chunk).to_bytes(4, "big") + chunk)
                    await writer.drain()
                writer.write(bytes(4))
                await writer.drain()
            answer = await reader.read(4096)
        finally:
            writer.close()
        return answer.rstrip(b"\0\n").decode(errors="replace")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, colon, port = self._address.rpartition(":")
        if colon and port.isdigit():
            return await asyncio.open_connection(host, int(port))
        return await asyncio.open_unix_connection(self._address)
