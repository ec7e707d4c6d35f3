"""F11: hostile input costs bounded memory and gets a 4xx.

Bytes are written as they are: no client library would send most of this.
"""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator, Iterable
from itertools import islice

import psutil
import pytest
import pytest_asyncio

from tests.e2e.conftest import Begin
from tests.e2e.processes import PASSWORD, PATIENCE, Server

pytestmark = pytest.mark.asyncio(loop_scope="session")

MIB = 2**20
MOST_GROWTH = 64 * MIB
"""Generous: what is measured is whether it is bounded, not how well."""

BODY_SECONDS = 1
_JSON = "Content-Type: application/json"


@pytest_asyncio.fixture(loop_scope="session")
async def hostile(begin: Begin) -> AsyncIterator[Server]:
    """A server, whose memory must not have grown by the end."""
    unmeasured = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
    server = await begin(BODY_SECONDS=str(BODY_SECONDS), **unmeasured)
    client = await server.client()  # what is made at first use is made now
    assert (await client.get("/auth/me")).status == 200
    before = memory(server)
    yield server
    assert (await client.get("/auth/me")).status == 200
    assert memory(server) - before < MOST_GROWTH


def memory(server: Server) -> int:
    return int(psutil.Process(server.pid).memory_info().rss)


async def speak(server: Server, pieces: Iterable[bytes], *, pause: float = 0) -> bytes:
    """Write for as long as the server listens; gives all that it answers."""
    port = int(server.settings["PORT"])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def write() -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    writing = asyncio.create_task(write())
    answer = b""
    try:
        async with asyncio.timeout(PATIENCE):
            while piece := await reader.read(MIB):
                answer += piece
    except ConnectionError:  # it has closed while we were still writing
        pass
    finally:
        writing.cancel()
        await asyncio.gather(writing, return_exceptions=True)
        writer.close()
        await asyncio.gather(writer.wait_closed(), return_exceptions=True)
    return answer


def status(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 "), answer[:100]
    return int(answer[9:12])


def code(answer: bytes) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"application/problem+json" in head
    return str(json.loads(body)["code"])


def post(path: str, body: bytes, *headers: str) -> list[bytes]:
    lines = [
        f"POST /api/v1{path} HTTP/1.1",
        "Host: a",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
        "",
        "",
    ]
    return ["\r\n".join(lines).encode(), body]


def get(path: str, *headers: str) -> list[bytes]:
    lines = [f"GET {path} HTTP/1.1", "Host: a", "Connection: close", *headers, "", ""]
    return ["\r\n".join(lines).encode()]


# Heads


async def test_many_ranges(hostile: Server) -> None:
    specs = ",".join(f"{n}-{n}" for n in range(4000))

    assert status(await speak(hostile, get("/", f"Range: bytes={specs}"))) == 200
    more = ",".join(f"{n}-{n}" for n in range(100_000))
    assert status(await speak(hostile, get("/", f"Range: bytes={more}"))) == 431


async def test_a_huge_address(hostile: Server) -> None:
    for size in (20_000, 70_000, 10 * MIB):
        answer = await speak(hostile, get(f"/api/v1/chats?cursor={'a' * size}"))
        assert status(answer) == 414
        assert code(answer) == "uri_too_long"


async def test_many_headers_and_long_ones(hostile: Server) -> None:
    many = [f"X-Header-{n}: {n}" for n in range(200)]
    for headers in (many, ["X-Long: " + "a" * 100_000], ["X" * 100_000 + ": a"]):
        answer = await speak(hostile, get("/api/v1/chats", *headers))
        assert status(answer) == 431
        assert code(answer) == "request_header_fields_too_large"


async def test_a_head_that_never_ends(hostile: Server) -> None:
    chunk = b"a" * 65_536
    one_line = [b"GET / HTTP/1.1\r\nX-Long: ", *[chunk] * 1600]
    in_lines = [b"GET / HTTP/1.1\r\n", *[b"X-A: " + chunk[:2000] + b"\r\n"] * 50_000]

    for pieces in (one_line, in_lines):
        assert (await speak(hostile, pieces))[:12] in {b"HTTP/1.1 431", b""}


async def test_a_head_that_comes_slowly(hostile: Server) -> None:
    answers = await asyncio.gather(
        *(
            speak(hostile, [b"GET / HTTP/1.1\r\n", *[b"X: a\r\n"] * 1000], pause=0.1)
            for _ in range(50)
        ),
        speak(hostile, [b""]),  # says nothing at all
        speak(hostile, [b"\r\n"] * 1000, pause=0.1),
    )

    assert {status(a) for a in answers[:-2]} == {408}
    assert list(answers[-2:]) == [b"", b""]


async def test_no_http(hostile: Server) -> None:
    for said in (b"\x16\x03\x01\x02\x00\x01", b"GET\r\n\r\n", b"\0" * 1000):
        answer = await speak(hostile, [said])
        assert status(answer) == 400
        assert code(answer) == "bad_request"


async def test_a_mass_of_pipelined_requests(hostile: Server) -> None:
    one = b"GET /api/v1/chats HTTP/1.1\r\nHost: a\r\n\r\n"

    answer = await speak(hostile, [one * 50_000])

    assert answer.count(b"HTTP/1.1 ") < 1000


# Bodies


async def test_a_body_of_ten_megabytes(hostile: Server) -> None:
    body = json.dumps({"login": "a" * 10 * MIB, "password": "b"}).encode()
    chunked = (
        f"POST /api/v1/auth/login HTTP/1.1\r\nHost: a\r\n{_JSON}\r\n"
        "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n"
    ).encode()
    pieces = [b"%x\r\n%b\r\n" % (MIB, b" " * MIB)] * 10

    said = await asyncio.gather(
        *(speak(hostile, post("/auth/login", body, _JSON)) for _ in range(10))
    )
    unsaid = await asyncio.gather(
        *(speak(hostile, [chunked, *pieces]) for _ in range(10))
    )

    # Whoever still writes when the connection is closed may not see the answer.
    assert {answer[:12] for answer in said} <= {b"HTTP/1.1 413", b""}
    assert {answer[:12] for answer in unsaid} <= {b"HTTP/1.1 413", b""}


async def test_compressed_bombs(hostile: Server) -> None:
    bomb = gzip.compress(b" " * 100 * MIB)
    for coding in ("gzip", "deflate", "br", "zstd"):
        encoded = f"Content-Encoding: {coding}"
        answer = await speak(hostile, post("/auth/login", bomb, _JSON, encoded))
        assert status(answer) == 415
        assert code(answer) == "unsupported_media_type"


async def test_json_that_is_deep_or_wide(hostile: Server) -> None:
    bodies = [
        b"[" * MIB,
        b"[" * 500_000 + b"]" * 500_000,
        b'{"login":' * 100_000,
        b'{"login": ' + b"9" * MIB + b"}",
        json.dumps({f"key{n}": n for n in range(10_000)}).encode(),
        json.dumps({"login": ["a"] * 100_000, "password": "b"}).encode(),
    ]
    for body in bodies:
        answer = await speak(hostile, post("/auth/login", body, _JSON))
        assert status(answer) in {400, 422}, body[:20]
        assert len(answer) < 10_000


async def test_forms_with_a_mass_of_parts_or_headers(hostile: Server) -> None:
    kind = "Content-Type: multipart/form-data; boundary=x"
    name = b'--x\r\nContent-Disposition: form-data; name="a"'
    file = name + b'; filename="b"'
    bodies = [
        (name + b"\r\n\r\nv\r\n") * 20_000 + b"--x--",
        (file + b"\r\n\r\nv\r\n") * 20_000 + b"--x--",
        name + b"\r\nX-A: b" * 100_000 + b"\r\n\r\nv\r\n--x--",
        name + b"\r\nX-A: " + b"b" * MIB + b"\r\n\r\nv\r\n--x--",
        name + b"\r\n\r\n" + b"v" * (MIB + MIB // 2) + b"\r\n--x--",
        b"-" * MIB,
    ]
    for body in bodies:
        answer = await speak(hostile, post("/auth/token", body, kind))
        assert 400 <= status(answer) < 500, body[:80]
    urlencoded = b"&".join(b"a%d=b" % n for n in range(100_000))
    form = "Content-Type: application/x-www-form-urlencoded"
    answer = await speak(hostile, post("/auth/token", urlencoded, form))
    assert 400 <= status(answer) < 500


async def test_bodies_that_come_slowly(hostile: Server) -> None:
    head = post("/auth/login", b"x" * 1000, _JSON)[0]

    answers = await asyncio.gather(
        *(speak(hostile, [head, *[b"x"] * 500], pause=0.1) for _ in range(50)),
        speak(hostile, [head]),
    )

    assert {status(a) for a in answers} == {408}
    assert {code(a) for a in answers} == {"request_timeout"}
    assert all(b"connection: close" in a.lower() for a in answers)


async def test_a_body_that_nobody_reads_does_not_keep_its_connection(
    hostile: Server,
) -> None:
    head = b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"

    answer = await speak(hostile, [head, *[b"x"] * 900], pause=0.1)

    assert status(answer) == 404


async def test_slow_senders_do_not_keep_the_others_out(begin: Begin) -> None:
    server = await begin(BODY_SECONDS="60", MAX_CONCURRENT_REQUESTS="8")
    client = await server.client()
    head = post("/auth/login", b"x" * 1000, _JSON)[0]
    slow = [asyncio.create_task(speak(server, [head, b"x"])) for _ in range(40)]
    try:
        # All but four are refused: these have the places that such may get.
        for one in islice(asyncio.as_completed(slow), 36):
            assert status(await one) == 503
        login = {"login": "user-1@example.com", "password": PASSWORD}
        assert (await client.get("/auth/me")).status == 200
        assert (await client.post("/auth/login", json=login)).status == 200
    finally:
        for task in slow:
            task.cancel()
        await asyncio.gather(*slow, return_exceptions=True)
