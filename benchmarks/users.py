"""The desk's list of users: a million accounts beside a thousand.

    python -m benchmarks.users [--rounds 5] [--database sqlite|postgresql]

Ours on both sides, on two databases of one kind; the small one stands for "plain". A
page of the million must cost at most 1.5 times what one of the thousand costs. What
counts is the time of a page, for a database of its own spends CPU of its own.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import orjson
from sqlalchemy import insert, text
from sqlalchemy.ext.asyncio import create_async_engine
from uuid_utils.compat import uuid7

from app.models import User
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
    request,
)
from benchmarks.plain import driver_url

FEW, MANY = 1_000, 1_000_000
CHUNK = 10_000
CONNECTIONS = 4
SECONDS = 1.5  # of each side in a round
ROWS = 20
PASSWORD = "a long pass phrase"  # noqa: S105 - of nobody
SEARCHES = {
    "one account": "user0000500@",
    "all accounts": "user",
}


def rows(count: int) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC)
    for number in range(count):
        yield {
            "id": uuid7(),
            "email": f"user{number:07}@example.com",
            "username": f"user{number:07}",
            "full_name": f"User {number}",
            "password_hash": "!",
            "status": "suspended" if number % 50 == 0 else "active",
            "created_at": now,
            "updated_at": now,
        }


async def seed(url: str, count: int) -> None:
    engine = create_async_engine(driver_url(url))
    async with engine.begin() as connection:
        users = rows(count)
        while chunk := list(itertools.islice(users, CHUNK)):
            await connection.execute(insert(User), chunk)
    async with engine.begin() as connection:
        await connection.execute(text("ANALYZE"))
    await engine.dispose()


def check_rows(body: bytes) -> None:
    found = orjson.loads(body)["items"]
    if len({row["id"] for row in found}) not in {1, ROWS}:
        raise IncompleteError(body[:500])


def load(server: Server, path: str, token: str) -> Callable[[], Measured]:
    wire = request("GET", f"/api/v1/admin/users{path}", token=token)
    streams = [itertools.repeat(wire)] * CONNECTIONS
    return lambda: Load(server, streams, check=check_rows, seconds=SECONDS).run()


def middle(server: Server, token: str) -> str:
    """The cursor of a page that lies as deep as `offset` reaches, or in the middle."""
    found = call(f"{server.url}/api/v1/admin/users?offset=480", token=token)
    return str(found["next_cursor"])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--database", choices=("sqlite", "postgresql"), default="sqlite"
    )
    options = arguments.parse_args()
    report = Report(options)
    with Workplace() as place:
        sides = []
        for name, count in (("few", FEW), ("many", MANY)):
            url = place.database(options.database, name)
            server = place.workroom(
                name,
                DATABASE_URL=url,
                ADMIN_EMAIL="root@example.com",
                ADMIN_PASSWORD=PASSWORD,
            )
            asyncio.run(seed(url, count))
            login = {"login": "admin", "password": PASSWORD}
            answer = call(f"{server.url}/api/v1/admin/auth/login", login)
            sides.append((server, answer["access_token"]))
        paths = {
            "first page": ["", ""],
            "page 25": [f"?cursor={middle(*side)}" for side in sides],
            "suspended ones": ["?status=suspended"] * 2,
        } | {
            f"search that finds {what}": [f"?q={quote(q)}"] * 2
            for what, q in SEARCHES.items()
        }
        for what, both in paths.items():
            before, after = (
                load(server, path, token)
                for (server, token), path in zip(sides, both, strict=True)
            )
            small, large = zip(*paired(options.rounds, before, after), strict=True)
            seconds = ([CONNECTIONS / m.rate for m in side] for side in (small, large))
            report.compare(f"{what}: seconds a page", *seconds, at_most=1.5)
            cpu = ([m.cpu_each for m in side] for side in (small, large))
            report.compare(f"{what}: CPU s of the server", *cpu)
    report.end()


if __name__ == "__main__":
    main()
