"""Memory that the upload of a large file takes, and how quick it is.

    python -m benchmarks.upload [--megabytes 500] [--storage local|s3] [--json]

The server's memory is looked at all the while, and what it grew by at the most is what
an upload takes, with all that is loaded for the first one. S3 is moto's server, in this
process.
"""

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Iterator

import psutil

from benchmarks.harness import (
    ADMIN,
    PATIENCE,
    Report,
    Server,
    Workplace,
    call,
    parser,
    register,
)
from tests.fakes.s3 import VARIABLES, s3_server

MOST_GROWTH = 64  # MiB
_PIECE = b"Trains to Bern leave at nine, and at ten.\n" * 25_000  # about a megabyte
_LOOK_EVERY = 0.01  # seconds
_HEAD = (
    b'--limit\r\nContent-Disposition: form-data; name="file"; filename="large.txt"\r\n'
    b"\r\n"
)
_TAIL = b"\r\n--limit--\r\n"


async def upload(server: Server, token: str, pieces: int) -> dict[str, object]:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    length = len(_HEAD) + pieces * len(_PIECE) + len(_TAIL)
    writer.write(
        f"POST /api/v1/files HTTP/1.1\r\nHost: localhost\r\n"
        f"Authorization: Bearer {token}\r\nContent-Length: {length}\r\n"
        "Content-Type: multipart/form-data; boundary=limit\r\n"
        "Connection: close\r\n\r\n".encode()
    )
    writer.write(_HEAD)
    for _ in range(pieces):
        writer.write(_PIECE)
        await writer.drain()
    writer.write(_TAIL)
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    writer.close()
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 201"), answer[:500]
    found: dict[str, object] = json.loads(body)
    return found


async def watched(
    server: Server, token: str, pieces: int
) -> tuple[dict[str, object], float]:
    """The file, and the most memory of the server meanwhile."""
    sending = asyncio.create_task(upload(server, token, pieces))
    most = 0.0
    while not sending.done():
        most = max(most, resident_mib(server))
        await asyncio.wait([sending], timeout=_LOOK_EVERY)
    return await sending, most


def resident_mib(server: Server) -> float:
    """Of the server alone, without the children that look into files."""
    rss: int = psutil.Process(server.process.pid).memory_info().rss
    return rss / 2**20


def allow(server: Server, user_id: str, size: int) -> None:
    desk = f"{server.url}/api/v1/admin"
    login = {"login": ADMIN["ADMIN_EMAIL"], "password": ADMIN["ADMIN_PASSWORD"]}
    token = call(f"{desk}/auth/login", login)["access_token"]
    limits = {"file_bytes": size, "storage_bytes": size * 4}
    call(f"{desk}/users/{user_id}/limits", limits, token, method="PUT")


@contextlib.contextmanager
def storage(kind: str) -> Iterator[dict[str, str]]:
    if kind == "local":
        yield {}
        return
    with s3_server() as url:
        yield {**VARIABLES, "S3_ENDPOINT_URL": url}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--megabytes", type=int, default=500)
    arguments.add_argument("--storage", choices=("local", "s3"), default="local")
    options = arguments.parse_args()
    pieces = -(-options.megabytes * 10**6 // len(_PIECE))
    size = pieces * len(_PIECE)
    whole = hashlib.sha256()
    for _ in range(pieces):
        whole.update(_PIECE)
    with storage(options.storage) as variables, Workplace() as place:
        server = place.workroom(
            DATABASE_URL=place.database("sqlite"),
            MAX_FILE_BYTES=str(size),
            BODY_SECONDS="600",
            **variables,
        )
        user_id, token = register(server)
        allow(server, user_id, size)
        before = resident_mib(server)
        begun = time.perf_counter()
        file, most = asyncio.run(watched(server, token, pieces))
        took = time.perf_counter() - begun
    report = Report(options)
    report.tell("megabytes sent", size / 1e6)
    report.tell("megabytes/s", size / 1e6 / took)
    report.tell("memory before, MiB", before)
    report.tell("memory at the most, MiB", most)
    report.tell("growth, MiB", most - before, at_most=MOST_GROWTH)
    wrong = int(file["sha256"] != whole.hexdigest() or file["size"] != size)
    report.tell("uploads that are not stored as they were sent", wrong, at_most=0)
    report.end()


if __name__ == "__main__":
    main()
