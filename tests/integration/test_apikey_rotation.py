"""Rotation of API keys with a grace: for a while two texts are one key.

TRUST K2, T4: what holds for a key holds for both, and what ends it ends both.
"""

import asyncio
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.core.database import utcnow
from app.models import AuditEvent, UserSession
from app.schemas.apikey import MOST_GRACE
from tests.client import Client
from tests.conftest import Server, ServerFactory
from tests.integration.test_apikeys import made, with_key

HOUR = 3600


async def rotated(owner: Client, key: dict[str, Any], grace: int) -> dict[str, Any]:
    answer = await owner.post(
        f"/apikeys/{key['id']}/rotate", json={"grace_seconds": grace}
    )
    assert answer.status == 200, answer.body
    return dict(answer.json)


async def statuses(server: Server, *keys: dict[str, Any]) -> list[int]:
    """What each text of a key is answered."""
    return [
        (await with_key(server, key["key"]).get("/users/me")).status for key in keys
    ]


async def shown(owner: Client) -> Any:
    return (await owner.get("/apikeys")).json["items"][0]["previous"]


async def until(moment: datetime) -> None:
    """Wait for the clock, by which a grace ends."""
    await asyncio.sleep((moment - utcnow()).total_seconds() + 0.01)


async def test_within_the_grace_both_work_and_the_list_tells_until_when(
    server: Server,
) -> None:
    owner = await server.client()
    old = await made(owner)
    assert await statuses(server, old) == [200]
    begun = utcnow()

    new = await rotated(owner, old, HOUR)

    assert await statuses(server, old, new) == [200, 200]
    assert (new["id"], new["previous"]["prefix"]) == (old["id"], old["prefix"])
    ends = datetime.fromisoformat(new["previous"]["works_until"]) - begun
    assert timedelta(hours=1) <= ends <= timedelta(hours=1, minutes=1)
    assert await shown(owner) == new["previous"]
    assert len((await owner.get("/apikeys")).json["items"]) == 1


async def test_after_the_grace_the_old_one_is_refused_though_it_is_cached(
    server: Server,
) -> None:
    """TRUST K2, T4."""
    owner = await server.client()
    old = await made(owner)
    principals = server.runtime.principals
    new = await rotated(owner, old, 1)
    before = await statuses(server, old, new)
    assert principals.known_key(old["key"], "127.0.0.1") is not None

    await until(datetime.fromisoformat(new["previous"]["works_until"]))

    assert principals.known_key(old["key"], "127.0.0.1") is None
    assert before == [200, 200]
    assert await statuses(server, old, new) == [401, 200]
    assert await shown(owner) is None
    # Nor is it known where nobody has asked before.
    principals.reread(UUID(old["id"]))
    assert await statuses(server, old, new) == [401, 200]


async def test_without_a_grace_the_old_one_and_the_one_before_end_at_once(
    server: Server,
) -> None:
    owner = await server.client()
    first = await made(owner)
    second = await rotated(owner, first, HOUR)
    assert await statuses(server, first, second) == [200, 200]

    answer = await owner.post(f"/apikeys/{first['id']}/rotate")

    assert await statuses(server, first, second, answer.json) == [401, 401, 200]
    assert answer.json["previous"] is None


async def test_a_second_rotation_within_the_grace_ends_the_oldest(
    server: Server,
) -> None:
    owner = await server.client()
    first = await made(owner)
    second = await rotated(owner, first, HOUR)
    assert await statuses(server, first, second) == [200, 200]

    third = await rotated(owner, first, HOUR)

    assert await statuses(server, first, second, third) == [401, 200, 200]
    assert (await shown(owner))["prefix"] == second["prefix"]


async def test_the_old_one_can_be_ended_before_its_grace(server: Server) -> None:
    """TRUST T4, T5: at any time, without a fresh login."""
    owner = await server.client()
    old = await made(owner)
    new = await rotated(owner, old, HOUR)
    assert await statuses(server, old, new) == [200, 200]
    async with server.runtime.database.unit_of_work() as session:
        for found in await session.scalars(select(UserSession)):
            found.authenticated_at -= timedelta(minutes=10, seconds=1)

    ended = await owner.delete(f"/apikeys/{old['id']}/previous")
    again = await owner.delete(f"/apikeys/{old['id']}/previous")

    assert (ended.status, again.status) == (204, 404)
    assert await statuses(server, old, new) == [401, 200]
    assert await shown(owner) is None


async def test_a_revocation_reaches_both(server: Server) -> None:
    """TRUST T4."""
    owner = await server.client()
    old = await made(owner)
    new = await rotated(owner, old, HOUR)
    assert await statuses(server, old, new) == [200, 200]

    await owner.delete(f"/apikeys/{old['id']}")

    assert await statuses(server, old, new) == [401, 401]


async def test_limits_scopes_addresses_and_usage_are_those_of_one_key(
    server: Server,
) -> None:
    """TRUST K2."""
    owner = await server.client()
    chat = await owner.chat()
    old = await made(
        owner, scopes=["chat"], requests_per_minute=2, allowed_ips=["127.0.0.0/8"]
    )
    new = await rotated(owner, old, HOUR)
    clients = [with_key(server, key["key"]) for key in (old, new, old)]
    question = {"content": "What is the guide?", "stream": False}

    asked = [
        (await client.post(f"/chats/{chat}/messages", json=question)).status
        for client in clients
    ]
    beyond = [(await client.get("/chats")).json["code"] for client in clients]
    await server.runtime.credits.flush()
    used = (await owner.get("/usage", params={"group_by": "key"})).json["items"]
    await owner.patch(f"/apikeys/{old['id']}", json={"allowed_ips": ["203.0.113.0/24"]})

    assert asked == [201, 201, 429]
    assert beyond == ["insufficient_scope"] * 3
    assert {item["key"]: item["requests"] for item in used if item["requests"]} == {
        old["id"]: 2
    }
    assert await statuses(server, old, new) == [401, 401]


async def test_a_key_that_expires_takes_the_old_one_with_it(server: Server) -> None:
    """TRUST K2: a grace is no way around an expiry."""
    owner = await server.client()
    soon = utcnow() + timedelta(seconds=0.5)
    old = await made(owner, expires_at=soon.isoformat())
    new = await rotated(owner, old, HOUR)
    before = await statuses(server, old, new)

    await until(soon)

    assert before == [200, 200]
    assert await statuses(server, old, new) == [401, 401]


@pytest.mark.parametrize("wrong", [-1, MOST_GRACE + 1, 1.5, "a day", None])
async def test_a_wrong_grace_is_named_and_rotates_nothing(
    server: Server, wrong: Any
) -> None:
    owner = await server.client()
    key = await made(owner)

    refused = await owner.post(
        f"/apikeys/{key['id']}/rotate", json={"grace_seconds": wrong}
    )

    assert refused.status == 422
    assert [error["path"] for error in refused.json["errors"]] == ["grace_seconds"]
    assert await statuses(server, key) == [200]
    assert (await rotated(owner, key, MOST_GRACE))["previous"] is not None


async def test_a_stream_goes_on_within_the_grace_and_ends_with_the_old_key(
    serve: ServerFactory, fake_openai: Any
) -> None:
    """TRUST T4."""
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        owner = await server.client()
        old = await made(owner)
        client = with_key(server, old["key"])
        chat = await client.chat(model="openai/fake-small")
        async with client.asking(chat, "Say 50 words") as stream:
            await stream.until("delta")
            await rotated(owner, old, HOUR)
            followed = len(server.runtime.principals._followers[UUID(old["id"])])
            await owner.delete(f"/apikeys/{old['id']}/previous")
            rest = await stream.all()

    assert followed == 1
    assert rest[-1].data["problem"]["code"] == "unauthenticated"


async def test_what_a_rotation_leaves_working_is_audited(server: Server) -> None:
    owner = await server.client()
    old = await made(owner)
    new = await rotated(owner, old, HOUR)
    await owner.delete(f"/apikeys/{old['id']}/previous")

    async with server.runtime.database.unit_of_work(read_only=True) as session:
        events = await session.scalars(
            select(AuditEvent)
            .where(AuditEvent.target_id == UUID(old["id"]))
            .order_by(AuditEvent.seq)
        )
        told = {event.action: event.details or {} for event in events}

    assert list(told) == ["key.create", "key.rotate", "key.end_previous"]
    rotation, end = told["key.rotate"], told["key.end_previous"]
    assert rotation["before"]["prefix"] == old["prefix"]
    assert rotation["after"]["prefix"] == new["prefix"]
    assert rotation["after"]["previous"]["prefix"] == old["prefix"]
    assert end["before"]["previous"] == rotation["after"]["previous"]
    assert "previous" not in end["after"]
    for secret in (old["key"], new["key"]):
        assert secret not in str(told)


async def test_external_applications_are_told_when_the_old_one_ends(
    server: Server,
) -> None:
    owner, service = await server.client(), await server.service("introspect")
    old = await made(owner)
    new = await rotated(owner, old, HOUR)

    told = [
        (await service.post("/auth/introspect", data={"token": key["key"]})).json
        for key in (old, new)
    ]

    ends = datetime.fromisoformat(new["previous"]["works_until"])
    assert [one["sid"] for one in told] == [old["id"]] * 2
    assert [one.get("exp") for one in told] == [int(ends.timestamp()), None]


async def test_over_redis_the_other_process_hears_when_the_old_one_ends(
    serve: ServerFactory, redis_url: str
) -> None:
    """TRUST T4: it had cached the old one without an end."""
    async with serve(REDIS_URL=redis_url) as one, serve(REDIS_URL=redis_url) as other:
        owner = await one.client()
        old = await made(owner)
        assert await statuses(other, old) == [200]

        new = await rotated(owner, old, 1)
        within = await statuses(other, old, new)
        await until(datetime.fromisoformat(new["previous"]["works_until"]))

        assert within == [200, 200]
        assert await statuses(other, old, new) == [401, 200]
