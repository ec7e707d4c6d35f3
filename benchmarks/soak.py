"""Memory under long load, with one reader in ten leaving in the middle of a reply.

    python -m benchmarks.soak [--minutes 10] [--streams 32] [--json]

A reply goes on without its reader, so at the end each one must be stored complete.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Iterator
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.harness import Report, Server, Workplace, parser, register
from benchmarks.lists import chat_rows
from benchmarks.plain import Chat, driver_url
from benchmarks.turn import MODELS, PACE_MS, check_turn, message, settings

LEAVES = 10
"""The turn of a chat in which its reader leaves; the next turn has a new chat."""

LEAVES_AFTER = 0.1  # seconds
MOST_GROWTH = 1.2
"""Of the memory after a tenth of the time."""


class Soak:
    def __init__(self, server: Server, token: str, chats: Iterator[str]) -> None:
        self._server, self._token, self._chats = server, token, chats
        self.turns = 0

    async def run(self, streams: int, seconds: float) -> None:
        self._ends = time.monotonic() + seconds
        await asyncio.gather(*(self._stream() for _ in range(streams)))

    async def _stream(self) -> None:
        while time.monotonic() < self._ends:
            chat = next(self._chats)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._server.port
            )
            for number in range(1, LEAVES + 1):
                writer.write(message(chat, self._token))
                self.turns += 1
                if number == LEAVES:
                    await asyncio.sleep(LEAVES_AFTER)
                else:
                    check_turn(await answer_body(reader))
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


async def answer_body(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head[:20], head
    body = b""
    while size := int(await reader.readline(), 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readline()
    return body


async def _add_chats(url: str, user: str, count: int) -> list[str]:
    rows = chat_rows(UUID(user), count)
    engine = create_async_engine(driver_url(url))
    async with engine.begin() as connection:
        await connection.execute(
            insert(Chat), [row | {"model": MODELS["openai"]} for row in rows]
        )
    await engine.dispose()
    return [str(row["id"]) for row in rows]


async def _watched(soak: Soak, server: Server, streams: int, seconds: float) -> float:
    """Runs it; gives the memory after a tenth of the time."""
    load = asyncio.create_task(soak.run(streams, seconds))
    done, _ = await asyncio.wait([load], timeout=seconds / 10)
    early = server.resident_mib()
    await load
    assert not done
    return early


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--streams", type=int, default=32)
    options = arguments.parse_args()
    seconds = options.minutes * 60
    with Workplace() as place:
        url = place.database("sqlite")
        server = place.workroom(DATABASE_URL=url, **settings(place.upstream(PACE_MS)))
        user, token = register(server)
        # A turn takes no less than its pieces.
        most = int(options.streams * (seconds / (LEAVES * 0.25) + 1))
        chats = iter(asyncio.run(_add_chats(url, user, most)))
        idle = server.resident_mib()
        soak = Soak(server, token, chats)
        early = asyncio.run(_watched(soak, server, options.streams, seconds))
        time.sleep(3)  # for the replies whose readers have left
        late = server.resident_mib()
        with contextlib.closing(sqlite3.connect(f"{place.folder}/bench.db")) as db:
            query = "SELECT count(*) FROM messages WHERE role = 'assistant'"
            query += " AND status = 'complete'"
            (complete,) = db.execute(query).fetchone()
    report = Report(options)
    report.tell("memory before, MiB", idle)
    report.tell("memory after a tenth of the time, MiB", early)
    report.tell("memory at the end, MiB", late, at_most=MOST_GROWTH * early)
    report.tell("turns", soak.turns)
    report.tell("turns that are not stored complete", soak.turns - complete, at_most=0)
    report.end()


if __name__ == "__main__":
    main()
