"""F7: past capacity, excess is refused quickly and the rest is served."""

import asyncio
import time
from collections import Counter

import pytest

from tests.client import Answer
from tests.e2e.conftest import Begin
from tests.e2e.processes import PASSWORD, PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOGIN = {"login": "nobody@example.com", "password": PASSWORD}


async def test_a_burst_is_refused_beyond_capacity_and_the_rest_completes(
    begin: Begin,
) -> None:
    # A login costs some 0.2 s of a core: a burst of them is more than there is.
    server = await begin(MAX_CONCURRENT_REQUESTS="6", BCRYPT_ROUNDS="12")
    client = server.anonymous()
    took: dict[int, float] = {}

    async def login(number: int) -> Answer:
        begun = time.monotonic()
        answer = await client.post("/auth/login", json=LOGIN)
        took[number] = time.monotonic() - begun
        return answer

    answers = await asyncio.gather(*(login(n) for n in range(120)))
    probe = await client.get("/health/ready")
    after = await login(120)

    counted = Counter(a.status for a in answers)
    assert set(counted) == {401, 503}
    assert counted[401] >= 6
    assert counted[503] >= 60
    refused = [n for n, answer in enumerate(answers) if answer.status == 503]
    assert all(answers[n].json["code"] == "overloaded" for n in refused)
    assert all(int(answers[n].headers["Retry-After"]) >= 1 for n in refused)
    assert max(took[n] for n in refused) < PATIENCE / 3
    assert max(took.values()) < PATIENCE
    assert probe.status == 200
    assert after.status == 401


async def test_probes_are_answered_while_nothing_else_is(begin: Begin) -> None:
    server = await begin(MAX_CONCURRENT_REQUESTS="1", BCRYPT_ROUNDS="13")
    client = server.anonymous()

    burst = [
        asyncio.create_task(client.post("/auth/login", json=LOGIN)) for _ in range(10)
    ]
    probes = [
        (await client.get(path)).status
        for path in ("/health/live", "/health/ready", "/health", "/metrics")
    ]

    assert probes == [200] * 4
    assert {a.status for a in await asyncio.gather(*burst)} == {401, 503}
