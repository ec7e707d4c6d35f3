"""What admins find in the audit."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from app.services import audit
from app.services.audit import SYSTEM, Actor
from tests.client import Client
from tests.conftest import Server

ADA, BOB = UUID(int=1), UUID(int=2)


async def act(server: Server, actor: Actor, action: str, **facts: Any) -> None:
    async with server.runtime.database.unit_of_work() as session:
        await audit.record(session, actor, action, **facts)


async def found(client: Client, **wanted: Any) -> list[str]:
    answer = await client.get("/admin/audit", params=wanted)
    assert answer.status == 200, answer.json
    return [event["action"] for event in answer.json["items"]]


@pytest.fixture
async def admin(server: Server) -> Client:
    client = await server.admin("audit")
    admin = Actor("admin", ADA, "192.0.2.1")
    await act(server, admin, "plan.change", target=("user", BOB), after={"plan": "pro"})
    await act(server, SYSTEM, "user.erase", target=("user", uuid4()))
    await act(server, admin, "user.suspend", target=("user", BOB))
    await act(server, admin, "userless.do")
    return client


async def test_an_event_tells_who_did_what_to_whom(admin: Client) -> None:
    answer = await admin.get("/admin/audit", params={"action": "plan.change"})

    (event,) = answer.json["items"]
    assert event.pop("created_at").endswith("Z")
    assert event.pop("seq") > 0
    assert event == {
        "actor_kind": "admin",
        "actor_id": str(ADA),
        "action": "plan.change",
        "target_kind": "user",
        "target_id": str(BOB),
        "details": {"ip": "192.0.2.1", "after": {"plan": "pro"}},
    }


async def test_events_are_found_by_what_was_done_by_whom_and_to_whom(
    admin: Client,
) -> None:
    assert (await found(admin))[:4] == [
        "userless.do",
        "user.suspend",
        "user.erase",
        "plan.change",
    ]
    assert await found(admin, action="user.suspend") == ["user.suspend"]
    assert (await found(admin, action="user"))[:2] == ["user.suspend", "user.erase"]
    assert "userless.do" not in await found(admin, action="user")
    assert await found(admin, action="use_") == []
    assert await found(admin, target_id=BOB.hex) == ["user.suspend", "plan.change"]
    assert await found(admin, actor_id=ADA.hex, action="plan") == ["plan.change"]


async def test_events_are_found_by_time(admin: Client) -> None:
    answer = await admin.get("/admin/audit", params={"action": "user.erase"})
    moment = answer.json["items"][0]["created_at"]

    assert (await found(admin, since=moment))[-1] == "user.erase"
    assert (await found(admin, until=moment))[0] == "plan.change"
    refused = await admin.get("/admin/audit", params={"since": "2026-01-01T00:00:00"})
    assert refused.status == 422  # of which zone?


async def test_pages_follow_each_other(admin: Client) -> None:
    everything = await found(admin, limit=100)
    pages, cursor = [], None
    for _ in everything:
        wanted = {"limit": 1} | ({"cursor": cursor} if cursor else {})
        answer = await admin.get("/admin/audit", params=wanted)
        pages += [event["action"] for event in answer.json["items"]]
        cursor = answer.json["next_cursor"]

    assert (pages, cursor) == (everything, None)
    for wrong in ("x", "-1", "1" * 19, "²"):
        refused = await admin.get("/admin/audit", params={"cursor": wrong})
        assert refused.json["errors"][0]["path"] == "cursor"
