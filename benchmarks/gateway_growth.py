"""A call by the gateway, of an installation that has grown, beside a small one.

    python -m benchmarks.gateway_growth [--rounds 5] [--database sqlite|postgresql]

Ours on both sides, on two databases of one kind; the small one stands for "plain".
First with 1,000 and 1,000,000 rows in the message log, then with 10 and 100,000 API
keys: of these 10 are in use, or 5,000 that were used a moment ago; and last, each call
is by a key that was not, so that the database is asked for it.
"""

import asyncio
import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import create_async_engine
from uuid_utils.compat import uuid7

from app.core.keys import KeyKind, new_key, prefix_of
from app.core.tokens import fingerprint
from app.models import ApiKey, MessageLog
from benchmarks.gateway import PATHS, SECONDS, body, check_whole, new_key_of
from benchmarks.harness import (
    Load,
    Measured,
    Report,
    Server,
    Workplace,
    paired,
    parser,
    quantile,
    register,
    request,
)
from benchmarks.plain import driver_url
from benchmarks.turn import MODELS, settings

FEW_ROWS, MANY_ROWS = 1_000, 1_000_000
FEW_KEYS, MANY_KEYS, IN_USE = 10, 100_000, 5_000
CHUNK = 5_000
CONNECTIONS = 8
FLAT = 1.2


def log_rows(user: str, count: int) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC)
    for _ in range(count):
        yield {
            "id": uuid7(),
            "created_at": now,
            "user_id": UUID(user),
            "username": "bench",
            "kind": "gateway",
            "model": MODELS["openai"],
            "messages": "x" * 400,
            "input_tokens": 20,
            "output_tokens": 64,
            "credits": 0,
            "latency_ms": 5,
            "status": "complete",
        }


def key_rows(user: str, keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    now = datetime.now(UTC)
    for key in keys:
        yield {
            "id": uuid7(),
            "user_id": UUID(user),
            "name": "bench",
            "prefix": prefix_of(key),
            "key_hash": fingerprint(key),
            "scopes": ["chat"],
            "allowed_ips": [],
            "created_at": now,
            "updated_at": now,
        }


async def seed(url: str, table: Any, rows: Iterator[dict[str, Any]]) -> None:
    engine = create_async_engine(driver_url(url))
    async with engine.begin() as connection:
        while chunk := list(itertools.islice(rows, CHUNK)):
            await connection.execute(insert(table), chunk)
    await engine.dispose()


def requests(keys: Sequence[str]) -> list[bytes]:
    sent = body(MODELS["openai"], stream=False)
    return [request("POST", PATHS["openai"], token=key, body=sent) for key in keys]


def load(server: Server, keys: Sequence[str]) -> Callable[[], Measured]:
    """Each call by one of the keys, at random."""
    sent = requests(keys)

    def calls() -> Iterator[bytes]:
        while True:
            yield random.choice(sent)  # noqa: S311 - a load, not a secret

    streams = [calls() for _ in range(CONNECTIONS)]
    return lambda: Load(server, streams, check=check_whole, seconds=SECONDS).run()


def first_uses(server: Server, keys: Sequence[str]) -> Callable[[], Measured]:
    """Each call by the next of the keys, so many in a round."""
    left = iter(requests(keys))

    def round_() -> Measured:
        each = IN_USE // CONNECTIONS
        streams = [itertools.islice(left, each) for _ in range(CONNECTIONS)]
        return Load(server, streams, check=check_whole).run()

    return round_


def tell(
    report: Report,
    what: str,
    rounds: list[tuple[Measured, ...]],
    *,
    at_most: float | None,
) -> None:
    small, large = zip(*rounds, strict=True)
    report.compare(
        f"{what}: CPU us/request",
        [m.cpu_each * 1e6 for m in small],
        [m.cpu_each * 1e6 for m in large],
        at_most=at_most,
    )
    report.compare(
        f"{what}: p99 ms",
        [quantile(m.took, 0.99) * 1e3 for m in small],
        [quantile(m.took, 0.99) * 1e3 for m in large],
    )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--database", choices=("sqlite", "postgresql"), default="sqlite"
    )
    options = arguments.parse_args()
    report = Report(options)
    with Workplace() as place:
        upstream = place.upstream(0)
        sides, keys = [], []
        for name, rows, count in (
            ("few", FEW_ROWS, FEW_KEYS),
            ("many", MANY_ROWS, MANY_KEYS),
        ):
            url = place.database(options.database, name)
            server = place.workroom(name, DATABASE_URL=url, **settings(upstream))
            user, token = register(server)
            made = [new_key(KeyKind.USER) for _ in range(count)]
            keys.append([new_key_of(server, token)])
            asyncio.run(seed(url, MessageLog, log_rows(user, rows)))
            sides.append((server, url, user, made))
        loads = [load(s[0], own) for s, own in zip(sides, keys, strict=True)]
        rounds = list(paired(options.rounds, *loads))
        tell(report, "1,000 to 1,000,000 log rows", rounds, at_most=FLAT)
        for _, url, user, made in sides:
            asyncio.run(seed(url, ApiKey, key_rows(user, made)))
        (few, _, _, ten), (many, _, _, made) = sides
        used, unused = made[:IN_USE], made[IN_USE:]
        first_uses(many, used)()
        for what, side, gate in (
            (f"{FEW_KEYS:,} in use", load(many, used[:FEW_KEYS]), FLAT),
            (f"{IN_USE:,} in use", load(many, used), FLAT),
            ("first uses", first_uses(many, unused), None),
        ):
            rounds = list(paired(options.rounds, load(few, ten), side))
            tell(report, f"10 to 100,000 keys, {what}", rounds, at_most=gate)
    report.end()


if __name__ == "__main__":
    main()
