"""A stand-in for ClamAV's daemon: it speaks INSTREAM, and knows one virus."""

import asyncio
from types import TracebackType
from typing import Self

EICAR = rb"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*"
"""What all virus scanners find, and no virus: the test file of EICAR."""


class FakeClamd:
    def __init__(self, *, most: int = 25 * 2**20) -> None:
        """`most` is its StreamMaxLength in bytes."""
        self._most = most
        self.streams: list[bytes] = []

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        host, port = self._server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _answer(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        assert await reader.readuntil(b"\0") == b"zINSTREAM\0"
        stream = b""
        while size := int.from_bytes(await reader.readexactly(4), "big"):
            stream += await reader.readexactly(size)
            if len(stream) > self._most:
                break
        self.streams.append(stream)
        writer.write(self._verdict(stream) + b"\0")
        await writer.drain()
        writer.close()

    def _verdict(self, stream: bytes) -> bytes:
        if len(stream) > self._most:
            return b"INSTREAM size limit exceeded. ERROR"
        if EICAR in stream:
            return b"stream: Eicar-Test-Signature FOUND"
        return b"stream: OK"
