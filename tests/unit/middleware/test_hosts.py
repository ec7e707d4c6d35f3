"""A3: a hostile Host gets a 4xx, and nothing else looks at it."""

import json

import pytest

from app.middleware.hosts import Hosts
from tests.unit.middleware.asgi import Inner, ask, behind

OURS = ("workroom.example.com", "*.intranet.example", "[::1]")

MALFORMED = [
    "",
    "a b",
    "ours.example/path",
    "ours.example?q",
    "ours.example#f",
    "user@ours.example",
    "[::1",
    "[::1]x",
    "ours.example:port",
    "ours.example:123456",
    "<script>alert(1)</script>",
    "öurs.example",
]


@pytest.mark.parametrize(
    "host",
    [
        "workroom.example.com",
        "WORKROOM.example.com",
        "workroom.example.com:8443",
        "a.intranet.example",
        "a.b.intranet.example:80",
        "[::1]",
        "[::1]:8000",
    ],
)
async def test_names_that_are_ours_pass(host: str) -> None:
    answer = await ask(behind(Hosts(OURS)), {"Host": host})

    assert answer.status == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil-workroom.example.com",
        "workroom.example.com.evil.example",
        "intranet.example",
        "evilintranet.example",
        *MALFORMED,
    ],
)
async def test_other_names_are_refused_with_a_problem(host: str) -> None:
    inner = Inner()

    answer = await ask(behind(Hosts(OURS), inner=inner), {"Host": host})

    assert answer.status == 400
    assert answer.header("content-type") == "application/problem+json"
    assert json.loads(answer.body)["code"] == "bad_request"
    assert inner.scope is None


@pytest.mark.parametrize("host", MALFORMED)
async def test_what_no_host_can_be_called_is_refused_everywhere(host: str) -> None:
    answer = await ask(behind(Hosts(("*",))), {"Host": host})

    assert answer.status == 400


async def test_two_hosts_are_refused() -> None:
    twice = [("Host", "workroom.example.com"), ("Host", "evil.example")]

    assert (await ask(behind(Hosts(OURS)), twice)).status == 400
    assert (await ask(behind(Hosts(("*",))), twice)).status == 400


async def test_a_request_without_a_host_passes_only_where_all_names_do() -> None:
    """HTTP/1.0, as simple health checks speak it."""
    assert (await ask(behind(Hosts(("*",))))).status == 200
    assert (await ask(behind(Hosts(OURS)))).status == 400
