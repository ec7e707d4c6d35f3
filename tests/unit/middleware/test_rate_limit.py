import json
import re
from typing import Any
from uuid import UUID, uuid4

import pytest
from starlette.types import ASGIApp

from app.core.config import ROOT, SecuritySettings
from app.core.database import utcnow
from app.core.keys import KeyKind, new_key
from app.core.ratelimit import LocalLimiter, network
from app.core.rates import LIMITED, complete
from app.core.tokens import Tokens
from app.middleware.front import PROBES, Gate
from app.middleware.proxies import Proxies
from app.middleware.rate_limit import RateLimit, endpoint
from app.services.authorization import Principal
from tests.unit.middleware.asgi import Answer, ask, behind, make_scope

TOKENS = Tokens(SecuritySettings.model_validate({"SECRET_KEY": "only for tests"}))
KNOWN_KEYS = {
    new_key(KeyKind.USER): Principal(user_id=uuid4(), session_id=uuid4())
    for _ in range(2)
}
HOME = "198.51.100.9"


def limited(rates: str, *before: Gate) -> ASGIApp:
    gate = RateLimit(
        rates=lambda: complete(rates),
        limiter=LocalLimiter(),
        tokens=TOKENS,
        known_key=lambda key, _ip: KNOWN_KEYS.get(key),
    )
    return behind(*before, gate)


def bearer(user_id: UUID) -> dict[str, str]:
    token = TOKENS.issue_access(account_id=user_id, session_id=uuid4(), now=utcnow())
    return {"Authorization": f"Bearer {token}"}


async def login(app: ASGIApp, **options: Any) -> Answer:
    return await ask(app, method="POST", path="/api/v1/auth/login", **options)


async def test_beyond_the_limit_is_a_problem_that_says_when_to_come_back() -> None:
    app = limited("default=2/minute")
    answers = [await ask(app, path="/api/v1/chats") for _ in range(3)]

    assert [a.status for a in answers] == [200, 200, 429]
    assert [a.header("ratelimit-limit") for a in answers] == ["2", "2", "2"]
    assert [a.header("ratelimit-remaining") for a in answers] == ["1", "0", "0"]
    assert all(0 < int(a.header("ratelimit-reset") or 0) <= 60 for a in answers)
    refused = answers[2]
    assert refused.header("content-type") == "application/problem+json"
    assert json.loads(refused.body)["code"] == "rate_limited"
    assert refused.header("retry-after") == refused.header("ratelimit-reset")
    assert answers[0].header("retry-after") is None


async def test_a_known_key_counts_for_its_user_by_whichever_header() -> None:
    app = limited("default=2/minute")
    first, second = KNOWN_KEYS

    spent = [
        (await ask(app, headers, client=("203.0.113.1", 1))).status
        for headers in (
            {"Authorization": f"Bearer {first}"},
            {"X-API-Key": first},
            {"X-API-Key": first},
            {"X-API-Key": second},
        )
    ]

    assert spent == [200, 200, 429, 200]


async def test_invented_keys_share_the_window_of_their_address() -> None:
    app = limited("default=2/minute")

    statuses = [
        (await ask(app, {"X-API-Key": new_key(KeyKind.USER)})).status for _ in range(3)
    ]

    assert statuses == [200, 200, 429]


async def test_users_count_for_themselves_wherever_they_are() -> None:
    app = limited("default=2/minute")
    ada, bob = bearer(uuid4()), bearer(uuid4())

    first = [(await ask(app, ada, client=(f"203.0.113.{n}", 1))).status for n in (1, 2)]

    assert first == [200, 200]
    assert (await ask(app, ada, client=("203.0.113.3", 1))).status == 429
    assert (await ask(app, bob, client=("203.0.113.1", 1))).status == 200
    assert (await ask(app, client=("203.0.113.1", 1))).status == 200


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Bearer a.b.c", "Basic eDp5", "Bearer \xe9\xff"]
)
async def test_who_is_nobody_counts_as_an_address(value: str) -> None:
    app = limited("default=1/minute")

    assert (await ask(app)).status == 200
    assert (await ask(app, {"Authorization": value})).status == 429


async def test_a_token_is_no_further_try_to_log_in() -> None:
    app = limited("auth.login=1/minute")

    assert (await login(app)).status == 200
    assert (await login(app, headers=bearer(uuid4()))).status == 429
    assert (await ask(app, method="POST", path="/api/v1/auth/token")).status == 429
    assert (await login(app, client=("203.0.113.1", 1))).status == 200


async def test_a_forged_forwarding_header_changes_nothing() -> None:
    """P6."""
    app = limited("auth.login=1/minute", Proxies(["192.0.2.1"]))
    statuses = [
        (await login(app, headers={"X-Forwarded-For": f"203.0.113.{n}"})).status
        for n in range(3)
    ]

    assert statuses == [200, 429, 429]


async def test_behind_a_trusted_proxy_clients_count_for_themselves() -> None:
    app = limited("auth.login=1/minute", Proxies(["192.0.2.1"]))
    hops = ["203.0.113.1", "203.0.113.2", "6.6.6.6, 203.0.113.1"]
    statuses = [
        (
            await login(app, headers={"X-Forwarded-For": hop}, client=("192.0.2.1", 1))
        ).status
        for hop in hops
    ]

    assert statuses == [200, 200, 429]


async def test_off_is_no_limit_and_no_header() -> None:
    app = limited("default=off")

    answers = [await ask(app) for _ in range(1000)]

    assert {a.status for a in answers} == {200}
    assert answers[0].header("ratelimit-limit") is None


async def test_probes_are_never_limited() -> None:
    app = limited("default=1/day")

    for path in sorted(PROBES) * 2:
        answer = await ask(app, path=path)
        assert answer.status == 200
        assert answer.headers == []


def test_networks() -> None:
    assert network(HOME) == HOME
    assert network(f"::ffff:{HOME}") == HOME
    assert network("2001:db8:1:2:3::4") == "2001:db8:1:2::/64"
    assert network("2001:db8:1:2:ffff::") == "2001:db8:1:2::/64"
    assert network("2001:db8:1:3::") != "2001:db8:1:2::/64"
    assert network("fe80::1%eth0") == "fe80::/64"
    assert network("testclient") == "testclient"
    assert len(network("x" * 10_000)) == 100


def test_every_name_is_a_route_and_every_route_has_a_name() -> None:
    api = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
    named: dict[str | None, set[str]] = {}
    for path, methods in api["paths"].items():
        for method in methods:
            filled = re.sub(r"\{[^}]+\}", str(uuid4()), path)
            name = endpoint(make_scope(method=method.upper(), path=filled))
            named.setdefault(name, set()).add(f"{method} {path}")

    assert named.pop(None) <= {f"get {probe}" for probe in PROBES}
    assert named.keys() == LIMITED.keys()
    assert named["auth.login"] == {
        "post /api/v1/auth/login",
        "post /api/v1/auth/token",
        "post /api/v1/admin/auth/login",
        "post /api/v1/staff/auth/login",
    }
    assert named["chats.send"] == {
        "post /api/v1/chats/{chat_id}/messages",
        "post /api/v1/messages/{message_id}/continue",
    }
