"""What the desk sees of message logs, and what the audit says of its looking."""

import asyncio
import csv
import io
import json
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.core.database import utcnow
from app.models import AuditEvent, MessageLog
from app.services.message_log.entry import Entry
from tests.client import Client
from tests.conftest import Server

ASKED = {"role": "user", "content": "=cmd|' /C calc'!A1"}
ANSWERED = {"role": "assistant", "content": "Ω, said the guide"}


async def write(server: Server, user: UUID, **facts: Any) -> None:
    known: dict[str, Any] = {
        "user_id": user,
        "kind": "chat",
        "model": "guide/manual",
        "status": "complete",
        "messages": [ASKED, ANSWERED],
    }
    await server.runtime.message_logs.write(Entry(**(known | facts)))
    async with asyncio.timeout(20):
        while server.runtime.message_logs._waiting:  # noqa: ASYNC110 - it calls nobody
            await asyncio.sleep(0.005)


async def looks(server: Server) -> list[AuditEvent]:
    """What the audit says of message logs, the newest first."""
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        events = await session.scalars(
            select(AuditEvent)
            .where(AuditEvent.action.startswith("message_log."))
            .order_by(AuditEvent.seq.desc())
        )
        return list(events)


@pytest.fixture
async def ada(server: Server) -> UUID:
    me = await (await server.client("ada")).get("/auth/me")
    return UUID(me.json["id"])


@pytest.fixture
async def admin(server: Server) -> Client:
    return await server.admin("logs")


async def listed(client: Client, **wanted: Any) -> list[dict[str, Any]]:
    answer = await client.get("/admin/message-logs", params=wanted)
    assert answer.status == 200, answer.json
    items: list[dict[str, Any]] = answer.json["items"]
    return items


async def test_the_list_shows_figures_and_no_text(
    server: Server, ada: UUID, admin: Client
) -> None:
    await write(server, ada, input_tokens=3, credits=2**40)

    (shown,) = await listed(admin)

    assert (shown["username"], shown["credits"]) == ("ada", 2**40)
    assert "messages" not in shown


async def test_calls_are_found_by_user_kind_model_status_and_time(
    server: Server, ada: UUID, admin: Client
) -> None:
    me = await (await server.client("bob")).get("/auth/me")
    await write(server, UUID(me.json["id"]), kind="gateway")
    await write(server, ada, model="openai/other", status="error")

    async def names(**wanted: Any) -> list[str]:
        return [log["username"] for log in await listed(admin, **wanted)]

    assert await names() == ["ada", "bob"]
    assert await names(user_id=str(ada)) == ["ada"]
    assert await names(username="Ada") == ["ada"]
    assert await names(username="bob@example.com") == ["bob"]
    assert await names(kind="gateway") == ["bob"]
    assert await names(model="openai/other") == ["ada"]
    assert await names(status="error", kind="gateway") == []
    later = (utcnow() + timedelta(seconds=1)).isoformat()
    assert await names(until=later) == ["ada", "bob"]
    assert await names(since=later) == []


async def test_a_name_is_looked_up_and_not_noted(
    server: Server, ada: UUID, admin: Client
) -> None:
    """The audit outlives the person, and keeps the id alone."""
    path, export = "/admin/message-logs", "/admin/message-logs/export"
    known = {"username": "ada@example.com"}
    found = [await admin.get(at, params=known) for at in (path, export)]
    nobody = await admin.get(path, params={"username": "eve"})
    another = await admin.get(path, params=known | {"user_id": str(UUID(int=1))})

    assert [answer.status for answer in found] == [200, 200]
    assert (nobody.status, another.status) == (404, 404)
    details = [event.details for event in await looks(server)]
    assert [told["after"]["user_id"] for told in details if told] == [str(ada)] * 2
    assert "example.com" not in str(details)


async def test_pages_follow_each_other(
    server: Server, ada: UUID, admin: Client
) -> None:
    for number in range(3):
        await write(server, ada, credits=number)

    first = await admin.get("/admin/message-logs", params={"limit": 2})
    cursor = first.json["next_cursor"]
    second = await admin.get("/admin/message-logs", params={"cursor": cursor})

    pages = [*first.json["items"], *second.json["items"]]
    assert [log["credits"] for log in pages] == [2, 1, 0]
    assert second.json["next_cursor"] is None


@pytest.mark.parametrize("desk", ["admin", "staff"])
async def test_who_reads_a_text_is_audited(
    server: Server, ada: UUID, desk: str
) -> None:
    await write(server, ada)
    client = await (server.admin("logs") if desk == "admin" else server.staff(3))
    shown = await client.get(f"/{desk}/message-logs")
    log_id = shown.json["items"][0]["id"]

    text = await client.get(f"/{desk}/message-logs/{log_id}")

    assert text.json["messages"] == [ASKED, ANSWERED]
    read, looked = await looks(server)
    assert (read.action, read.actor_kind) == ("message_log.read", desk)
    assert (read.target_kind, read.target_id) == ("user", ada)
    assert read.details is not None
    assert read.details["after"] == {"message_log": log_id}
    assert (looked.action, looked.actor_id) == ("message_log.list", read.actor_id)


async def test_what_is_not_there_is_not_found_and_not_audited(
    server: Server, admin: Client
) -> None:
    answer = await admin.get(f"/admin/message-logs/{UUID(int=7)}")

    assert answer.status == 404
    assert await looks(server) == []


async def test_a_text_from_another_row_is_refused(
    server: Server, ada: UUID, admin: Client
) -> None:
    """TRUST D1."""
    await write(server, ada)
    await write(server, ada)
    first, second = await listed(admin)
    async with server.runtime.database.unit_of_work() as session:
        other = await session.get_one(MessageLog, UUID(first["id"]))
        moved = update(MessageLog).where(MessageLog.id == UUID(second["id"]))
        await session.execute(moved.values(messages=other.messages))

    answer = await admin.get(f"/admin/message-logs/{second['id']}")

    assert (answer.status, answer.json["code"]) == (409, "unreadable")


async def test_a_csv_export_defuses_formulas(
    server: Server, ada: UUID, admin: Client
) -> None:
    """TRUST D2."""
    await write(server, ada, model="=HYPERLINK(1)")

    answer = await admin.get("/admin/message-logs/export")

    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert 'filename="message-logs.csv"' in answer.headers["Content-Disposition"]
    (row,) = csv.DictReader(io.StringIO(answer.body.decode()))
    assert (row["username"], row["model"]) == ("ada", "'=HYPERLINK(1)")
    assert "messages" not in row


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
async def test_an_export_holds_everything_and_is_audited(
    server: Server, ada: UUID, admin: Client, kind: str
) -> None:
    for number in range(250):
        await server.runtime.message_logs.write(
            Entry(ada, "chat", "guide/manual", "complete", [ASKED], credits=number)
        )
    await write(server, ada, credits=250, kind="title")

    wanted = {"format": kind, "with_text": "true", "kind": "chat"}
    answer = await admin.get("/admin/message-logs/export", params=wanted)

    lines = answer.body.decode()
    rows: list[dict[str, Any]]
    if kind == "csv":
        rows = list(csv.DictReader(io.StringIO(lines)))
        texts = [json.loads(row["messages"]) for row in rows]
    else:
        rows = [json.loads(line) for line in lines.splitlines()]
        texts = [row["messages"] for row in rows]
    assert [int(row["credits"]) for row in rows] == list(range(249, -1, -1))
    assert texts == [[ASKED]] * 250
    (event,) = await looks(server)
    assert (event.action, event.details and event.details["after"]) == (
        "message_log.export",
        {"kind": "chat", "format": kind, "with_text": True},
    )


async def test_an_admin_switches_a_users_text_off(
    server: Server, ada: UUID, admin: Client
) -> None:
    path = f"/admin/users/{ada}/message-logs"
    answer = await admin.put(path, json={"keep_text": False})
    assert (answer.status, answer.json) == (200, {"keep_text": False})
    await write(server, ada)

    (shown,) = await listed(admin)
    text = await admin.get(f"/admin/message-logs/{shown['id']}")

    assert text.json["messages"] is None
    assert (await looks(server))[-1].action == "message_log.set_text_keeping"
    missing = await admin.put(
        f"/admin/users/{UUID(int=7)}/message-logs", json={"keep_text": True}
    )
    assert missing.status == 404
