"""`Idempotency-Key` of admins, support staff, service keys, and of what makes keys."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.core.database import Database
from app.models import (
    Admin,
    ApiKey,
    CreditEntry,
    IdempotencyKey,
    IpRule,
    ModelRoute,
    Plan,
    ReportedUsage,
    ServiceKey,
    SupportStaff,
    User,
)
from app.services.audit import SYSTEM
from tests.client import Answer, Client
from tests.conftest import Server, desk_form
from tests.integration.test_idempotency import count, key

PERMISSIONS = ("users", "staff", "plans", "credits", "settings", "models")
PERSON = {"email": "made@example.com"}

MAKING: list[tuple[str, dict[str, Any], Any]] = [
    ("/admin/users", {"json": PERSON}, User),
    (
        "/admin/users/import",
        {"data": "email\nmade@example.com\n", "headers": {"Content-Type": "text/csv"}},
        User,
    ),
    ("/admin/staff", {"json": desk_form("made") | {"level": 1}}, SupportStaff),
    ("/admin/admins", {"json": desk_form("made") | {"permissions": []}}, Admin),
    ("/admin/plans", {"json": {"name": "made"}}, Plan),
    (
        "/admin/routes",
        {"json": {"name": "made", "deployments": [{"model": "guide/manual"}]}},
        ModelRoute,
    ),
    ("/admin/ip-rules", {"json": {"network": "198.18.0.1", "action": "deny"}}, IpRule),
]
making = pytest.mark.parametrize(
    ("path", "request_", "model"), MAKING, ids=[path for path, *_ in MAKING]
)


async def send(client: Client, path: str, request: dict[str, Any]) -> Answer:
    headers = key() | request.get("headers", {})
    return await client.post(path, **(request | {"headers": headers}))


@making
async def test_what_an_admin_makes_is_made_once(
    server: Server,
    database: Database,
    path: str,
    request_: dict[str, Any],
    model: Any,
) -> None:
    admin = await server.admin(*PERMISSIONS)
    before = await count(database, model)

    first = await send(admin, path, request_)
    again = await send(admin, path, request_)
    other = await admin.post(path, json={"name": "another"}, headers=key())

    assert (first.status, again.status) == (201, 201), first.body
    assert again.body == first.body
    assert again.headers["Idempotency-Replayed"] == "true"
    assert (other.status, other.json["code"]) == (409, "idempotency_key_reused")
    assert await count(database, model) == before + 1


@making
async def test_twins_of_an_admin_are_done_once(
    server: Server,
    database: Database,
    path: str,
    request_: dict[str, Any],
    model: Any,
) -> None:
    admin = await server.admin(*PERMISSIONS)
    before = await count(database, model)

    answers = await asyncio.gather(*(send(admin, path, request_) for _ in range(4)))

    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
    assert await count(database, model) == before + 1


async def balance_of(database: Database, user: str) -> int:
    async with database.unit_of_work(read_only=True) as session:
        booked = await session.scalar(
            select(func.sum(CreditEntry.amount)).where(
                CreditEntry.user_id == UUID(user), CreditEntry.note == "A present."
            )
        )
    return booked or 0


@pytest.mark.parametrize("desk", ["admin", "staff"])
async def test_credits_are_given_once(
    server: Server, database: Database, desk: str
) -> None:
    giver = await (server.admin("credits") if desk == "admin" else server.staff(3))
    user = (await (await server.client()).get("/auth/me")).json["id"]
    gift = {"json": {"amount": 1_000, "note": "A present."}}
    path = f"/{desk}/users/{user}/credits"

    answers = await asyncio.gather(*(send(giver, path, gift) for _ in range(4)))
    late = await send(giver, path, gift)

    assert {answer.status for answer in (*answers, late)} == {204}
    assert (late.body, late.headers["Idempotency-Replayed"]) == (b"", "true")
    assert await balance_of(database, user) == 1_000


async def test_an_application_reports_usage_once(
    server: Server, database: Database
) -> None:
    service, other = await server.service("report"), await server.service("report")
    user = (await (await server.client()).get("/auth/me")).json["id"]
    report = {"json": {"subject": user, "kind": "documents", "amount": 3}}

    answers = await asyncio.gather(
        *(send(service, "/usage/report", report) for _ in range(4))
    )
    another = await send(other, "/usage/report", report)

    assert {answer.status for answer in answers} == {200}
    assert {answer.body for answer in answers} == {another.body}
    assert "Idempotency-Replayed" not in another.headers
    assert await count(database, ReportedUsage) == 2


@pytest.mark.parametrize("kind", ["api", "service"])
async def test_a_key_that_is_made_twice_is_named_and_not_shown_again(
    server: Server, database: Database, kind: str
) -> None:
    model: Any
    if kind == "api":
        client, path, model = await server.client(), "/apikeys", ApiKey
        form: dict[str, Any] = {"name": "a script"}
    else:
        client, path = await server.admin("settings"), "/admin/service-keys"
        form, model = {"name": "an application", "scopes": ["report"]}, ServiceKey

    first = await client.post(path, json=form, headers=key())
    again = await client.post(path, json=form, headers=key())

    assert (first.status, again.status) == (201, 409)
    assert again.json["code"] == "secret_shown_once"
    assert again.json["id"] == first.json["id"]
    assert first.json["key"] not in again.body.decode()
    assert await count(database, model) == 1
    async with database.unit_of_work(read_only=True) as session:
        assert (await session.scalars(select(IdempotencyKey.body))).all() == [None]


async def test_a_key_is_rotated_once(server: Server) -> None:
    client = await server.client()
    made = (await client.post("/apikeys", json={"name": "a script"})).json
    path = f"/apikeys/{made['id']}/rotate"

    first, again = [await client.post(path, headers=key()) for _ in range(2)]

    assert (first.status, again.status) == (200, 409)
    assert (again.json["code"], again.json["id"]) == ("secret_shown_once", made["id"])
    rotated = server.anonymous()
    rotated.headers["x-api-key"] = first.json["key"]
    assert (await rotated.get("/auth/me")).status == 200


async def test_the_same_key_is_another_one_of_everybody(server: Server) -> None:
    """A key says who sent it: an admin is told nothing that another was."""
    ada, bob = await server.admin("plans"), await server.admin("plans", name="bob")
    form = {"json": {"name": "made"}}

    mine = await send(ada, "/admin/plans", form)
    theirs = await send(bob, "/admin/plans", form)

    assert (mine.status, theirs.status) == (201, 409)
    assert theirs.json["code"] == "plan_taken"


async def test_an_answer_is_repeated_to_nobody_who_may_no_longer_ask(
    server: Server,
) -> None:
    """TRUST A1."""
    root, clerk = (
        await server.admin(*PERMISSIONS),
        await server.admin("users", name="clerk"),
    )
    assert (await send(clerk, "/admin/users", {"json": PERSON})).status == 201
    me = (await clerk.get("/admin/auth/me")).json["id"]
    demoted = await root.patch(f"/admin/admins/{me}", json={"permissions": []})
    assert demoted.status == 200
    clerk = await server.admin("users", name="clerk")

    for client in (clerk, await server.staff(3), await server.client()):
        answer = await send(client, "/admin/users", {"json": PERSON})
        assert answer.status in {401, 403}
        assert PERSON["email"] not in answer.body.decode()


async def test_an_erasure_leaves_no_answer_that_tells_of_the_person(
    server: Server, database: Database
) -> None:
    """TRUST D3."""
    admin = await server.admin("users")
    user = (await send(admin, "/admin/users", {"json": PERSON})).json["id"]
    assert await count(database, IdempotencyKey) == 1
    await admin.post(f"/admin/users/{user}/delete")

    await server.runtime.erasure.erase(SYSTEM, UUID(user))

    assert await count(database, IdempotencyKey) == 0
