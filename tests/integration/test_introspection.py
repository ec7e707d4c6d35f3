"""What external applications ask and tell: RFC 7662, and reports of usage."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import func, select

from app.core.database import Database, utcnow
from app.models import DeskSession, ReportedUsage
from tests.client import Answer, Client
from tests.conftest import Server
from tests.integration.test_statements import counted

INACTIVE = {"active": False}


async def asked(service: Client, token: str, **form: str) -> dict[str, Any]:
    answer = await service.post("/auth/introspect", data={"token": token, **form})
    assert answer.status == 200, answer.body
    return dict(answer.json)


async def key_of(client: Client, **fields: Any) -> dict[str, Any]:
    answer = await client.post("/apikeys", json={"name": "a script", **fields})
    assert answer.status == 201, answer.body
    return dict(answer.json)


def token_of(client: Client) -> str:
    return str(client.tokens["access_token"])


async def test_a_session_is_told_with_its_user(server: Server) -> None:
    user, service = await server.client(), await server.service("introspect")
    me = (await user.get("/auth/me")).json
    session = (await user.get("/auth/sessions")).json["items"][0]

    answer = await service.post(
        "/auth/introspect",
        data={"token": token_of(user), "token_type_hint": "access_token"},
    )

    told = answer.json
    limits = (await user.get("/usage/limits")).json
    assert answer.headers["Cache-Control"] == "no-store"
    assert utcnow().timestamp() < told.pop("exp") <= utcnow().timestamp() + 1800
    assert told == {
        "active": True,
        "sub": me["id"],
        "sid": session["id"],
        "kind": "user",
        "username": "ada",
        "scope": "*",
        "plan": "free",
        "limits": {name: limit for name, limit in limits.items() if limit is not None},
    }


async def test_an_api_key_is_told_with_its_scopes(server: Server) -> None:
    user, service = await server.client(), await server.service("introspect")
    later = utcnow().replace(microsecond=0) + timedelta(days=1)
    key = await key_of(
        user, scopes=["models", "ext:reports"], expires_at=later.isoformat()
    )

    told = await asked(service, key["key"])

    assert told["sid"] == key["id"]
    assert told["scope"] == "ext:reports models"
    assert told["exp"] == int(later.timestamp())


async def test_of_what_is_no_live_token_nothing_is_told(server: Server) -> None:
    user, service = await server.client(), await server.service("introspect")
    admin = await server.admin("users")
    dead = await key_of(user)
    await user.delete(f"/apikeys/{dead['id']}")
    key = await server.service_key("introspect")

    answers = [
        await asked(service, token)
        for token in (
            "garbage",
            user.tokens["refresh_token"],
            token_of(admin),
            dead["key"],
            dead["key"][:-1],
            key.key,
        )
    ]

    assert answers == [INACTIVE] * 6


@pytest.mark.parametrize("ended", ["session", "key", "account"])
async def test_a_revocation_is_felt_by_the_next_question(
    server: Server, ended: str
) -> None:
    """TRUST T4."""
    user, service = await server.client(), await server.service("introspect")
    key = await key_of(user)
    tokens = [token_of(user), key["key"]]
    before = [(await asked(service, token))["active"] for token in tokens]

    if ended == "key":
        await user.delete(f"/apikeys/{key['id']}")
    elif ended == "session":
        form = {"refresh_token": user.tokens["refresh_token"]}
        await user.post("/auth/logout", json=form)
    else:
        await user.delete("/users/me", json={"password": "a long pass phrase"})
    after = [(await asked(service, token))["active"] for token in tokens]

    assert before == [True, True]
    assert after == [ended == "key", ended == "session"]


async def test_a_key_confined_to_networks_needs_the_address_it_came_from(
    server: Server,
) -> None:
    """TRUST K2."""
    user, service = await server.client(), await server.service("introspect")
    key = (await key_of(user, allowed_ips=["203.0.113.0/24"]))["key"]

    active = [
        (await asked(service, key, **form))["active"]
        for form in (
            {},
            {"client_ip": "203.0.113.9"},
            {"client_ip": "198.51.100.1"},
            {"client_ip": "no address"},
        )
    ]

    assert active == [False, True, False, False]


async def test_each_call_needs_its_scope(server: Server) -> None:
    introspecting = await server.service("introspect")
    reporting = await server.service("report")

    asked_by_other = await reporting.post("/auth/introspect", data={"token": "x"})
    told_by_other = await introspecting.post(
        "/usage/report", json={"subject": str(uuid4()), "kind": "x", "amount": 1}
    )

    for answer in (asked_by_other, told_by_other):
        assert (answer.status, answer.json["code"]) == (403, "insufficient_scope")


async def test_a_service_key_is_nobody_elsewhere_and_nobody_is_a_service(
    server: Server,
) -> None:
    user, service = await server.client(), await server.service("introspect")
    key = (await key_of(user))["key"]

    elsewhere = await service.get("/chats")
    others = [
        await server.anonymous().post(
            "/auth/introspect", data={"token": "x"}, headers=headers
        )
        for headers in (
            {},
            {"Authorization": f"Bearer {token_of(user)}"},
            {"Authorization": f"Bearer {key}"},
            {"X-API-Key": key},
        )
    ]

    assert elsewhere.status == 401
    assert [answer.status for answer in others] == [401] * 4


async def test_a_revoked_service_key_ends_at_once(server: Server) -> None:
    admin = await server.admin("settings")
    created = await admin.post(
        "/admin/service-keys", json={"name": "shop", "scopes": ["introspect"]}
    )
    service = server.anonymous()
    service.headers["X-API-Key"] = created.json["key"]
    form = {"data": {"token": "x"}}
    first = await service.post("/auth/introspect", **form)

    at = f"/admin/service-keys/{created.json['id']}"
    statuses = [(await admin.delete(at)).status for _ in range(2)]
    then = await service.post("/auth/introspect", **form)
    listed = (await admin.get("/admin/service-keys")).json["items"]

    assert created.headers["Cache-Control"] == "no-store"
    assert created.json["key"].startswith("wrs_")
    assert (first.status, then.status) == (200, 401)
    assert statuses == [204, 404]
    assert listed == []


async def test_a_question_about_a_known_token_costs_no_query(server: Server) -> None:
    user, service = await server.client(), await server.service("introspect")
    await asked(service, token_of(user))

    with counted(server) as statements:
        await asked(service, token_of(user))
        await asked(service, "wr_garbage")

    assert statements == []


async def report(service: Client, **fields: Any) -> Answer:
    return await service.post(
        "/usage/report", json={"kind": "documents", "amount": 3, **fields}
    )


async def total(server: Server) -> int | None:
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        amount = await session.scalar(select(func.sum(ReportedUsage.amount)))
        return int(amount) if amount is not None else None


async def test_a_report_counts_once_however_often_it_is_sent(server: Server) -> None:
    user, service = await server.client(), await server.service("report")
    subject = (await user.get("/auth/me")).json["id"]
    one = str(uuid4())

    answers = await asyncio.gather(
        *(report(service, subject=subject, id=one) for _ in range(5))
    )
    unnamed = [await report(service, subject=subject) for _ in range(2)]
    elsewhere = await report(await server.service("report"), subject=subject, id=one)

    assert sum(a.json["booked"] for a in answers) == 1
    assert [a.json["booked"] for a in (*unnamed, elsewhere)] == [1, 1, 1]
    assert await total(server) == 4 * 3


async def test_many_reports_are_booked_without_those_of_strangers(
    server: Server,
) -> None:
    user, service = await server.client(), await server.service("report")
    subject, stranger = (await user.get("/auth/me")).json["id"], str(uuid4())
    reports = [
        {"subject": s, "kind": "pages", "amount": 1}
        for s in (subject, stranger, subject)
    ]

    answer = await service.post("/usage/report", json={"reports": reports})
    nothing = await service.post("/usage/report", json={"reports": reports[1:2]})

    assert answer.json == {"booked": 2, "unknown": [stranger]}
    assert nothing.json == {"booked": 0, "unknown": [stranger]}
    assert await total(server) == 2


async def test_credits_are_paid_for_once(server: Server) -> None:
    """TRUST M1: the balance is never negative, whatever others report."""
    user, service = await server.client(), await server.service("report")
    subject = (await user.get("/auth/me")).json["id"]
    before = (await user.get("/usage/limits")).json["credits"]["balance"]
    one = str(uuid4())

    for _ in range(2):
        await report(service, subject=subject, kind="credits", amount=7, id=one)
    after = (await user.get("/usage/limits")).json["credits"]["balance"]
    await report(service, subject=subject, kind="credits", amount=10**12)
    limits = (await user.get("/usage/limits")).json
    usage = (await user.get("/usage?group_by=kind,model")).json["items"]

    assert after == before - 7
    assert limits["credits"]["balance"] == 0
    assert [(one["kind"], one["model"]) for one in usage] == [
        ("external", "an application")
    ]
    assert usage[0]["credits"] == before


@pytest.mark.parametrize(
    ("wrong", "path"),
    [
        ({"amount": 0}, "amount"),
        ({"amount": 10**12 + 1}, "amount"),
        ({"kind": "two words"}, "kind"),
        ({"subject": "ada"}, "subject"),
    ],
)
async def test_a_wrong_report_names_its_field(
    server: Server, wrong: dict[str, Any], path: str
) -> None:
    service = await server.service("report")
    answer = await report(service, **({"subject": str(uuid4())} | wrong))

    assert answer.status == 422
    assert [error["path"] for error in answer.json["errors"]] == [path]
    assert await total(server) is None


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"reports": []}, "reports"),
        ({"reports": [{"subject": str(uuid4()), "kind": "pages"}]}, "reports.0.amount"),
        ([], "body"),
    ],
)
async def test_what_is_wrong_is_told_of_one_report_or_of_many(
    server: Server, body: Any, path: str
) -> None:
    service = await server.service("report")

    answer = await service.post("/usage/report", json=body)

    assert answer.status == 422
    assert [error["path"] for error in answer.json["errors"]] == [path]


async def test_a_service_key_is_made_after_a_fresh_login_alone(
    server: Server, database: Database
) -> None:
    """TRUST T5; it is revoked at any time."""
    admin = await server.admin("settings")
    form = {"name": "shop", "scopes": ["introspect"]}
    made = await admin.post("/admin/service-keys", json=form)
    async with database.unit_of_work() as session:
        theirs = (await session.scalars(select(DeskSession))).one()
        theirs.created_at = utcnow() - timedelta(minutes=11)
        assert theirs.admin_id is not None
    server.runtime.desk_principals.forget(theirs.admin_id)

    refused = await admin.post("/admin/service-keys", json=form)
    revoked = await admin.delete(f"/admin/service-keys/{made.json['id']}")

    assert (made.status, revoked.status) == (201, 204)
    assert (refused.status, refused.json["code"]) == (403, "fresh_login_required")
