"""Chat list and message page beside a plain FastAPI and SQLAlchemy service.

    python -m benchmarks.lists [--rounds 5] [--database sqlite|postgresql]

Both work on the same database, with a user of 50 chats and one of 50,000, and chats of
100 and of 10,000 messages: what a page costs must not grow with what lies behind it.
The last two comparisons are of ours alone: the small one stands for "plain". What
counts is the requests that a core answers, by CPU time.
"""

import asyncio
import itertools
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import jwt
import orjson
from sqlalchemy import insert, update
from sqlalchemy.ext.asyncio import create_async_engine
from uuid_utils.compat import uuid7

from benchmarks.harness import (
    IncompleteError,
    Load,
    Measured,
    Report,
    Server,
    Workplace,
    call,
    paired,
    parser,
    register,
    request,
)
from benchmarks.plain import SECRET, Chat, Message, driver_url

FEW_CHATS, MANY_CHATS = 50, 50_000
FEW_MESSAGES, MANY_MESSAGES = 100, 10_000
CONNECTIONS = 16
SECONDS = 1.5  # of each side in a round
ROWS = 20
WORDS = "So it is with all things that are counted one by one. " * 5


def chat_rows(user: UUID, count: int) -> list[dict[str, Any]]:
    now = datetime.now(UTC)
    times = [now - timedelta(minutes=number) for number in range(count)]
    return [
        {
            "id": uuid7(),
            "user_id": user,
            "title": f"Chat {number}",
            "model": "guide/manual",
            "system_prompt": None,
            "archived": False,
            "pinned": False,
            "temporary": False,
            "leaf_id": None,
            "created_at": time,
            "updated_at": time,
        }
        for number, time in enumerate(times)
    ]


def message_rows(chat: UUID, count: int) -> list[dict[str, Any]]:
    """Question, reply, question and so on: one branch."""
    ids = [uuid7() for _ in range(count)]
    return [
        {
            "id": row_id,
            "chat_id": chat,
            "parent_id": parent,
            "role": "assistant" if number % 2 else "user",
            "content": [{"type": "text", "text": f"{number}: {WORDS}"}],
            "citations": [],
            "model": "guide/manual" if number % 2 else None,
            "status": "complete",
            "stop_reason": "end_turn" if number % 2 else None,
            "usage": {"input_tokens": 9, "output_tokens": 60} if number % 2 else None,
            "error": None,
            "credits": 0,
            "attempt": 0,
            "rating": 0,
            "rating_comment": None,
            "created_at": datetime.now(UTC),
        }
        for number, (parent, row_id) in enumerate(itertools.pairwise([None, *ids]))
    ]


async def seed(url: str, users: Sequence[UUID]) -> list[UUID]:
    """Chats for the two users; gives the first one's two chats that hold messages."""
    few, many = (
        chat_rows(user, count)
        for user, count in zip(users, (FEW_CHATS, MANY_CHATS), strict=True)
    )
    engine = create_async_engine(driver_url(url))
    async with engine.begin() as connection:
        await connection.execute(insert(Chat), few)
        await connection.execute(insert(Chat), many)
        for chat, count in zip(few, (FEW_MESSAGES, MANY_MESSAGES), strict=False):
            rows = message_rows(chat["id"], count)
            await connection.execute(insert(Message), rows)
            leaf = update(Chat).where(Chat.id == chat["id"])
            await connection.execute(leaf.values(leaf_id=rows[-1]["id"]))
    await engine.dispose()
    return [chat["id"] for chat in few[:2]]


def check_rows(body: bytes) -> None:
    page = orjson.loads(body)
    rows = page["items"] if isinstance(page, dict) else page
    if len({row["id"] for row in rows}) != ROWS:
        raise IncompleteError(body[:500])


def check_same(ours: Any, plain: Any) -> None:
    """Both give the same rows, but that SQLite has forgotten plain's time zones."""
    for row in plain:
        for name, value in row.items():
            if name.endswith("_at"):
                row[name] = value.removesuffix("Z") + "Z"
    if ours["items"] != plain:
        raise IncompleteError(ours, plain)


def load(server: Server, path: str, token: str) -> Callable[[], Measured]:
    wire = request("GET", path, token=token)
    streams = [itertools.repeat(wire)] * CONNECTIONS
    return lambda: Load(server, streams, check=check_rows, seconds=SECONDS).run()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--database", choices=("sqlite", "postgresql"), default="sqlite"
    )
    options = arguments.parse_args()
    with Workplace() as place:
        url = place.database(options.database)
        ours = place.workroom(DATABASE_URL=url)
        plain = place.plain("crud", DATABASE_URL=url)
        (few, few_token), (many, many_token) = (register(ours, n) for n in "ab")
        chats = asyncio.run(seed(url, [UUID(few), UUID(many)]))
        plain_token = jwt.encode({"sub": few}, SECRET, algorithm="HS256")
        report = Report(options)

        def side_by_side(
            what: str,
            a: Callable[[], Measured],
            b: Callable[[], Measured],
            gate: float | None,
        ) -> None:
            before, after = zip(*paired(options.rounds, a, b), strict=True)
            capacity = ([m.rate_of_a_core for m in side] for side in (before, after))
            report.compare(f"{what}: requests/CPU s", *capacity, at_least=gate)
            rates = ([m.rate for m in side] for side in (before, after))
            report.compare(f"{what}: requests/s", *rates)

        for name, path, gate in (
            ("chat list", "/chats", 3.0),
            ("message page", f"/chats/{chats[0]}/messages", None),
        ):
            check_same(
                call(f"{ours.url}/api/v1{path}", token=few_token),
                call(f"{plain.url}{path}", token=plain_token),
            )
            side_by_side(
                f"{name} to plain",
                load(plain, path, plain_token),
                load(ours, f"/api/v1{path}", few_token),
                gate,
            )
        flat = 1 / 1.3
        side_by_side(
            f"{MANY_CHATS} chats to {FEW_CHATS}",
            load(ours, "/api/v1/chats", few_token),
            load(ours, "/api/v1/chats", many_token),
            flat,
        )
        side_by_side(
            f"{MANY_MESSAGES} messages to {FEW_MESSAGES}",
            *(
                load(ours, f"/api/v1/chats/{chat}/messages", few_token)
                for chat in chats
            ),
            flat,
        )
    report.end()


if __name__ == "__main__":
    main()
