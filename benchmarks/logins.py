"""Logins that a core answers, beside the password hash that each must make.

    python -m benchmarks.logins [--rounds 5] [--json]

"plain" is the hash alone, of the same scheme and cost, made one after the other. What a
login does besides is the difference: lockout counters, session, tokens, audit, mail.
"""

import itertools
import time

import orjson

from app.core.passwords import BcryptSha256
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

CONNECTIONS = 4
SECONDS = 4.0  # of each side in a round
ROUNDS = 12
"""Of bcrypt: the default of BCRYPT_ROUNDS."""

PASSWORD = "correct horse battery staple 7"  # noqa: S105 - of the benchmark's own users


def hashes() -> Measured:
    scheme = BcryptSha256(ROUNDS)
    stored = scheme.hash(PASSWORD)
    measured = Measured()
    wall, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - wall < SECONDS / 2:
        begun = time.perf_counter()
        if not scheme.verify(PASSWORD, stored):
            raise IncompleteError(stored)
        measured.took.append(time.perf_counter() - begun)
    measured.seconds = time.perf_counter() - wall
    measured.cpu = time.process_time() - cpu
    return measured


def logins(server: Server, names: list[str]) -> Measured:
    """Each connection logs its own user in, again and again."""
    forms = [
        request(
            "POST", "/api/v1/auth/login", body={"login": name, "password": PASSWORD}
        )
        for name in names
    ]
    streams = [itertools.repeat(form) for form in forms]
    return Load(server, streams, check=check, seconds=SECONDS).run()


def check(body: bytes) -> None:
    if not orjson.loads(body).get("access_token"):
        raise IncompleteError(body[:500])


def main() -> None:
    options = parser(__doc__).parse_args()
    report = Report(options)
    with Workplace() as place:
        server = place.workroom(RATE_LIMITS="auth.login=off")
        names = [f"user{number}@example.org" for number in range(CONNECTIONS)]
        for name in names:
            account = {"email": name, "password": PASSWORD}
            call(f"{server.url}/api/v1/auth/register", account)
        rounds = list(paired(options.rounds, hashes, lambda: logins(server, names)))
        bare, ours = zip(*rounds, strict=True)
        report.compare(
            "logins a second of a core",
            [one.rate_of_a_core for one in bare],
            [one.rate_of_a_core for one in ours],
        )
        report.tell(
            "CPU ms of a login besides its hash",
            1e3 * sum(o.cpu_each - b.cpu_each for b, o in rounds) / len(rounds),
        )
    report.end()


if __name__ == "__main__":
    main()
