"""Introspections that a core answers, beside a bare ASGI answer.

    python -m benchmarks.introspection [--rounds 5] [--database sqlite|postgresql]

External applications ask whose a token is: what they do not find in their own cache
comes here. "plain" is an ASGI application that reads the request and gives a fixed
answer. What counts is the requests that a core answers, by CPU time.
"""

import asyncio
import itertools
from collections.abc import Callable
from urllib.parse import urlencode

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine
from uuid_utils.compat import uuid7

from app.core.keys import KeyKind, new_key, prefix_of
from app.core.tokens import fingerprint
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
)
from benchmarks.plain import driver_url

CONNECTIONS = 16
SECONDS = 1.5  # of each side in a round
_INSERT = text(
    "INSERT INTO service_keys (id, name, prefix, key_hash, scopes, allowed_ips, "
    "created_at, updated_at) VALUES (:id, 'bench', :prefix, :hash, '[\"introspect\"]', "
    "'[]', CURRENT_TIMESTAMP, CURRENT_TIMESTAMP)"
)


async def service_key(url: str) -> str:
    """A new one, as an admin would make it."""
    key = new_key(KeyKind.SERVICE)
    row_id = uuid7()
    engine = create_async_engine(driver_url(url))
    row = {
        "id": row_id.hex if engine.dialect.name == "sqlite" else row_id,
        "prefix": prefix_of(key),
        "hash": fingerprint(key),
    }
    async with engine.begin() as connection:
        await connection.execute(_INSERT, row)
    await engine.dispose()
    return key


def wire(key: str, token: str) -> bytes:
    """The request, as it goes over the wire."""
    body = urlencode({"token": token})
    return (
        "POST /api/v1/auth/introspect HTTP/1.1\r\nhost: localhost\r\n"
        f"authorization: Bearer {key}\r\n"
        "content-type: application/x-www-form-urlencoded\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def check(body: bytes) -> None:
    if orjson.loads(body).get("active") is not True:
        raise IncompleteError(body[:500])


def load(server: Server, request: bytes) -> Callable[[], Measured]:
    streams = [itertools.repeat(request)] * CONNECTIONS
    return lambda: Load(server, streams, check=check, seconds=SECONDS).run()


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument(
        "--database", choices=("sqlite", "postgresql"), default="sqlite"
    )
    options = arguments.parse_args()
    with Workplace() as place:
        url = place.database(options.database)
        ours, plain = place.workroom(DATABASE_URL=url), place.plain("answer")
        _, token = register(ours)
        made = call(f"{ours.url}/api/v1/apikeys", {"name": "bench"}, token)
        service = asyncio.run(service_key(url))
        report = Report(options)
        for what, credential in (("a session", token), ("an API key", made["key"])):
            sent = wire(service, credential)
            rounds = list(paired(options.rounds, load(plain, sent), load(ours, sent)))
            report.compare(
                f"{what}: introspections/s of a core",
                [bare.rate_of_a_core for bare, _ in rounds],
                [workroom.rate_of_a_core for _, workroom in rounds],
            )
            report.tell(
                f"{what}: us of CPU each",
                1e6 * sum(one.cpu_each for _, one in rounds) / len(rounds),
            )
        report.end()


if __name__ == "__main__":
    main()
