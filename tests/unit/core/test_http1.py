"""The HTTP client, against a server that writes whatever it is told to."""

import asyncio
import ssl
import weakref
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Self

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from app.core.http1 import Address, BrokenError, Client, ConnectError, StalledError
from app.core.http1 import client as http1
from app.core.http1.connection import Connection


class Server:
    """Answers each request with the next of `answers`; may hang up after the last."""

    def __init__(
        self,
        *answers: bytes,
        tls: ssl.SSLContext | None = None,
        hangs_up: bool = False,
    ) -> None:
        self.answers = list(answers)
        self.requests: list[bytes] = []
        self.connections = 0
        self.written = asyncio.Event()
        self._tls = tls
        self._hangs_up = hangs_up

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, ssl=self._tls
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    def address(self, path: str = "/") -> Address:
        port = self._server.sockets[0].getsockname()[1]
        return Address.of(f"http{'s' if self._tls else ''}://127.0.0.1:{port}{path}")

    async def _serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.connections += 1
        try:
            while self.answers:
                self.requests.append(await reader.readuntil(b"\r\n\r\n"))
                writer.write(self.answers.pop(0))
                await writer.drain()
                self.written.set()
            if not self._hangs_up:
                await reader.read()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    client = Client(connect_seconds=5, stall_seconds=5)
    yield client
    await client.close()


async def get(client: Client, address: Address) -> tuple[int, bytes]:
    async with client.request("GET", address, headers={}) as response:
        return response.status, await response.read(10**8)


OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


async def test_a_request_as_it_goes_over_the_wire(client: Client) -> None:
    async with Server(OK) as server:
        address = server.address("/a%3Ab?q=1")
        async with client.request(
            "POST", address, headers={"X-Key": "k"}, body=b""
        ) as response:
            assert (response.status, await response.read(9)) == (200, b"ok")

    head, *lines = server.requests[0].decode().split("\r\n")
    assert head == "POST /a%3Ab?q=1 HTTP/1.1"
    assert {"X-Key: k", "Accept-Encoding: identity", "Content-Length: 0"} <= set(lines)
    assert f"Host: 127.0.0.1:{address.port}" in lines


async def test_a_connection_serves_one_request_after_the_other(client: Client) -> None:
    async with Server(OK, OK, OK) as server:
        for _ in range(3):
            assert await get(client, server.address()) == (200, b"ok")
    assert server.connections == 1


async def test_one_that_the_server_will_close_is_not_used_again(client: Client) -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nconnection: close\r\n\r\n")
    async with Server(closing, OK) as server:
        await get(client, server.address())
        await get(client, server.address())
    assert server.connections == 2


async def test_one_that_was_left_early_is_closed(client: Client) -> None:
    async with Server(OK.replace(b"2\r\n", b"9\r\n"), OK) as server:
        async with client.request("GET", server.address(), headers={}) as response:
            assert await anext(response.parts()) == b"ok"
        assert client.connections == 0
        assert await get(client, server.address()) == (200, b"ok")


@pytest.mark.usefixtures("no_collector")
async def test_nothing_of_one_that_was_closed_waits_for_the_garbage_collector(
    client: Client,
) -> None:
    async with Server(OK.replace(b"2\r\n", b"9\r\n"), OK) as server:
        async with client.request("GET", server.address(), headers={}) as response:
            left = weakref.ref(response._connection)
        del response
        await get(client, server.address())
    assert left() is None


async def test_one_that_was_left_just_as_its_head_came_is_closed(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task is cancelled after the head was read, and before it has gone on."""
    received = Connection.data_received

    def leave(connection: Connection, data: bytes) -> None:
        received(connection, data)
        leaving.cancel()

    monkeypatch.setattr(Connection, "data_received", leave)
    async with Server(OK.replace(b"2\r\n", b"9\r\n")) as server:
        leaving = asyncio.create_task(get(client, server.address()))
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert client.connections == 0


async def test_one_that_has_been_idle_for_long_is_not_used(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http1, "_KEEP_SECONDS", 0)
    async with Server(OK, OK) as server:
        await get(client, server.address())
        await get(client, server.address())
    assert server.connections == 2


async def test_bytes_that_nobody_asked_for_end_the_connection(client: Client) -> None:
    async with Server(OK + OK, OK) as server:
        await get(client, server.address())
        assert await get(client, server.address()) == (200, b"ok")
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK,
    ],
)
async def test_forms_that_an_answer_may_have(client: Client, answer: bytes) -> None:
    async with Server(answer, OK) as server:
        assert await get(client, server.address()) == (200, b"ok")
        assert await get(client, server.address()) == (200, b"ok")
    assert server.connections == 1


async def test_a_body_may_end_with_the_connection(client: Client) -> None:
    async with Server(
        b"HTTP/1.1 200 OK\r\n\r\nok" + bytes(10), hangs_up=True
    ) as server:
        assert await get(client, server.address()) == (200, b"ok" + bytes(10))
    assert client.connections == 0


async def test_headers_are_joined_and_their_names_in_lower_case(client: Client) -> None:
    answer = OK.replace(b"\r\n\r\n", b"\r\nX-A: 1\r\nx-a: 2\r\n\r\n")
    async with (
        Server(answer) as server,
        client.request("GET", server.address(), headers={}) as response,
    ):
        assert response.headers["x-a"] == "1, 2"
        assert response.ok


@pytest.mark.parametrize(
    "answer",
    [
        b"no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 101 Go\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nnot a number\r\n",
    ],
)
async def test_what_is_no_answer_is_broken(client: Client, answer: bytes) -> None:
    async with Server(answer) as server:
        with pytest.raises(BrokenError):
            await get(client, server.address())
    assert client.connections == 0


async def test_an_answer_cut_short_is_broken_and_its_beginning_is_there(
    client: Client,
) -> None:
    cut = OK.replace(b"2\r\n", b"9\r\n")
    async with (
        Server(cut, hangs_up=True) as server,
        client.request("GET", server.address(), headers={}) as response,
    ):
        parts = response.parts()
        assert await anext(parts) == b"ok"
        with pytest.raises(BrokenError):
            await anext(parts)


async def test_a_server_that_hangs_up_without_a_word(client: Client) -> None:
    async with Server(b"", hangs_up=True) as server:
        with pytest.raises(BrokenError):
            await get(client, server.address())


async def test_a_server_that_says_nothing_stalls() -> None:
    client = Client(connect_seconds=5, stall_seconds=0.1)
    async with Server(b"") as server:
        with pytest.raises(StalledError):
            await get(client, server.address())
    assert client.connections == 0


async def test_a_server_waits_for_who_does_not_read(client: Client) -> None:
    """What is held in memory is bounded, and all of it comes in the end."""
    size = 64 * 2**20
    head = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size
    async with (
        Server(head + bytes(size)) as server,
        client.request("GET", server.address(), headers={}) as response,
    ):
        first = await anext(response.parts())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.written.wait(), 0.2)
        assert response._held < 4 * 2**20
        rest = await response.read(size)
    assert len(first) + len(rest) == size


async def streamed(client: Client, *, count: int, gap: float) -> list[bytes]:
    """The reads of a stream that comes in so many pieces, so many seconds apart."""
    gone = asyncio.Event()

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for number in range(count):
            writer.write(b"4\r\n%03d \r\n" % number)
            await asyncio.sleep(gap)
        writer.write(b"0\r\n\r\n")
        await gone.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with client.request(
        "GET", Address.of(f"http://127.0.0.1:{port}/"), headers={}
    ) as response:
        reads = [part async for part in response.parts()]
    assert client.connections == 1  # it can serve again
    gone.set()
    server.close()
    assert b"".join(reads) == b"".join(b"%03d " % n for n in range(count))
    return reads


async def test_a_quick_stream_is_read_in_fewer_reads(client: Client) -> None:
    """But for its first words, which do not wait."""
    reads = await streamed(client, count=100, gap=0.002)

    assert len(reads) < 50
    assert reads[0] == b"000 "


async def test_a_header_of_two_lines_is_refused(client: Client) -> None:
    async with Server(OK) as server:
        evil = {"X-Key": "a\r\nX-Evil: b"}
        with pytest.raises(ValueError, match="X-Key"):
            client.request("GET", server.address(), headers=evil)
    assert server.requests == []


async def test_nobody_there(client: Client) -> None:
    async with Server() as server:
        address = server.address()
    with pytest.raises(ConnectError):
        await get(client, address)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://host", ("http", "host", 80, "/", "")),
        ("https://Host/a?b=c", ("https", "host", 443, "/a?b=c", "")),
        ("http://[::1]:8080/x", ("http", "::1", 8080, "/x", "")),
        ("http://b\u00fccher.example/", ("http", "xn--bcher-kva.example", 80, "/", "")),
        ("http://us%40r:p@host", ("http", "host", 80, "/", "Basic dXNAcjpw")),
    ],
)
def test_addresses(url: str, expected: tuple[object, ...]) -> None:
    assert tuple(Address.of(url)) == expected


@pytest.mark.parametrize(
    "url",
    ["nonsense", "ftp://host/", "http://", "http://host:99999/", "http://host/a b",
     "http://[broken", "http://host/\u00fc"],
)  # fmt: skip
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - that it is one is all that counts
        Address.of(url)


def test_the_host_header_of_an_address() -> None:
    assert Address.of("https://host/").authority == "host"
    assert Address.of("https://[::1]:8443/").authority == "[::1]:8443"


@asynccontextmanager
async def _secure(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *, trusted: bool
) -> AsyncIterator[Server]:
    """A server with a certificate of its own."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    chain = folder / "server.pem"
    public = certificate.public_bytes(serialization.Encoding.PEM)
    chain.write_bytes(
        public
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    (folder / "ca.pem").write_bytes(public)
    if trusted:
        monkeypatch.setenv("SSL_CERT_FILE", str(folder / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    http1._tls.cache_clear()
    async with Server(OK, OK, tls=context) as server:
        yield server
    http1._tls.cache_clear()


async def test_tls(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _secure(tmp_path, monkeypatch, trusted=True) as server:
        assert await get(client, server.address()) == (200, b"ok")
        assert await get(client, server.address()) == (200, b"ok")
        assert server.connections == 1


async def test_a_certificate_that_nobody_vouches_for(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with _secure(tmp_path, monkeypatch, trusted=False) as server:
        with pytest.raises(ConnectError, match="certificate"):
            await get(client, server.address())
