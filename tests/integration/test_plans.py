"""Plans and limits at the desk, and what users see of them."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select

from app.core.database import utcnow
from app.integrations.llm.base import Usage
from app.models import AuditEvent, CreditEntry
from app.services import usage
from app.services.credits.purse import Call
from tests.client import Client
from tests.conftest import Server, seeded_plans
from tests.integration.test_statements import counted


async def id_of(client: Client) -> str:
    return str((await client.get("/auth/me")).json["id"])


async def spend(
    server: Server, user: str, credits_: int, call: Call, *, conversation: bool = True
) -> None:
    process = server.runtime.credits
    reservation = await process.reserve(
        UUID(user), credits_, call, conversation=conversation
    )
    process.settle(reservation, credits_, Usage(100, 50))
    await process.flush()


async def test_an_installation_begins_with_four_plans_and_free_is_a_new_user_s(
    server: Server,
) -> None:
    admin = await server.admin("plans")
    client = await server.client()

    listed = (await admin.get("/admin/plans")).json["items"]
    limits = (await client.get("/usage/limits")).json

    assert [plan["name"] for plan in listed] == ["enterprise", "free", "pro", "team"]
    seeds = {plan["name"]: plan for plan in seeded_plans()}
    assert listed[1] == listed[1] | seeds["free"]
    assert limits["plan"] == "free"
    assert limits["credits"]["monthly"] == seeds["free"]["monthly_credits"]
    assert limits["credits"]["balance"] == seeds["free"]["monthly_credits"]
    assert limits["conversations"]["remaining"] == seeds["free"]["daily_conversations"]
    assert limits["models"] is None


async def test_limits_are_read_by_one_statement_and_no_session(server: Server) -> None:
    """Thousands of users who did not call for a minute may come in one."""
    user = UUID(await id_of(await server.client()))
    run: list[str] = []
    server.runtime.database.watchers.append(run.append)

    with counted(server) as statements:
        for _ in range(2):
            await server.runtime.credits.require_allowed(user, "guide/manual", None)

    assert len(statements) == 1
    assert statements[0] in run


async def test_a_plan_is_made_changed_and_deleted(server: Server) -> None:
    admin = await server.admin("plans")
    form = {"name": "tiny", "daily_conversations": 3, "models": ["guide/*"]}

    made = await admin.post("/admin/plans", json=form)
    again = await admin.post("/admin/plans", json=form)
    changed = await admin.patch("/admin/plans/tiny", json={"daily_conversations": None})
    read = await admin.get("/admin/plans/tiny")
    deleted = await admin.delete("/admin/plans/tiny")
    gone = await admin.get("/admin/plans/tiny")

    assert (made.status, made.json["models"]) == (201, ["guide/*"])
    assert made.json["monthly_credits"] is None
    assert (again.status, again.json["code"]) == (409, "plan_taken")
    assert changed.json["daily_conversations"] is None
    assert changed.json["models"] == ["guide/*"]
    assert read.json == changed.json
    assert (deleted.status, gone.status) == (204, 404)


@pytest.mark.parametrize(
    "form",
    [
        {"name": "Big Plan"},
        {"name": "tiny", "daily_conversations": -1},
        {"name": "tiny", "requests_per_minute": 0},
        {"name": "tiny", "monthly_credits": 2**63},
        {"name": "tiny", "messages": 5},
        {"name": "tiny", "models": [""]},
    ],
)
async def test_a_plan_that_means_nothing_is_refused(
    server: Server, form: dict[str, Any]
) -> None:
    admin = await server.admin("plans")

    answer = await admin.post("/admin/plans", json=form)

    assert answer.status == 422
    assert answer.json["errors"][0]["path"].split(".")[0] in form


async def test_a_plan_in_use_stays(server: Server) -> None:
    admin = await server.admin("plans")
    user = await id_of(await server.client())
    await admin.put(f"/admin/users/{user}/plan", json={"plan": "team"})

    for name in ("team", "free"):
        answer = await admin.delete(f"/admin/plans/{name}")
        assert (answer.status, answer.json["code"]) == (409, "plan_in_use")


async def test_a_new_plan_holds_from_the_next_call_on(server: Server) -> None:
    admin = await server.admin("plans")
    client = await server.client()
    user = await id_of(client)
    process = server.runtime.credits
    assert (await process._plans.of(UUID(user))).plan == "free"  # it is cached now

    wrong = await admin.put(f"/admin/users/{user}/plan", json={"plan": "none"})
    answer = await admin.put(f"/admin/users/{user}/plan", json={"plan": "pro"})

    assert (wrong.status, wrong.json["errors"][0]["path"]) == (422, "plan")
    assert answer.status == 204
    assert (await process._plans.of(UUID(user))).plan == "pro"
    await admin.patch("/admin/plans/pro", json={"daily_conversations": 1})
    assert (await process._plans.of(UUID(user))).daily_conversations == 1
    limits = (await client.get("/usage/limits")).json
    assert (limits["plan"], limits["conversations"]["limit"]) == ("pro", 1)
    assert limits["credits"]["balance"] == limits["credits"]["monthly"]


async def test_a_user_s_own_limits_go_before_the_plan_s(server: Server) -> None:
    admin = await server.admin("plans")
    client = await server.client()
    user = await id_of(client)
    own = {"daily_conversations": 2, "models": ["openai/*"], "tokens_per_minute": None}

    await admin.put(f"/admin/users/{user}/limits", json=own)
    limits = (await client.get("/usage/limits")).json
    await admin.put(f"/admin/users/{user}/limits", json={})
    reset = (await admin.get(f"/admin/users/{user}/limits")).json

    free = next(plan for plan in seeded_plans() if plan["name"] == "free")
    assert limits["conversations"]["limit"] == 2
    assert limits["models"] == ["openai/*"]
    assert limits["tokens_per_minute"] is None
    assert limits["requests_per_minute"] == free["requests_per_minute"]
    assert reset["conversations"]["limit"] == free["daily_conversations"]


async def test_credits_are_adjusted_listed_and_audited(server: Server) -> None:
    """TRUST M1."""
    admin = await server.admin("credits")
    staff = await server.staff(3)
    client = await server.client()
    user = await id_of(client)
    path = f"/users/{user}/credits"

    given = await admin.post(f"/admin{path}", json={"amount": 500, "note": "Sorry."})
    taken = await staff.post(f"/staff{path}", json={"amount": -200, "note": "Oh."})
    too_much = await staff.post(
        f"/staff{path}", json={"amount": -(10**14), "note": "x"}
    )
    nothing = await admin.post(f"/admin{path}", json={"amount": 0, "note": "x"})
    first = (await admin.get(f"/admin{path}?limit=2")).json
    rest = (await admin.get(f"/admin{path}?cursor={first['next_cursor']}")).json

    assert (given.status, taken.status, nothing.status) == (204, 204, 422)
    assert (too_much.status, too_much.json["code"]) == (409, "credits_in_use")
    entries = first["items"] + rest["items"]
    assert [entry["amount"] for entry in entries[:2]] == [-200, 500]
    assert entries[2]["kind"] == "grant"
    assert rest["next_cursor"] is None
    balance = (await client.get("/usage/limits")).json["credits"]["balance"]
    assert balance == sum(entry["amount"] for entry in entries)
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        events = await session.scalars(
            select(AuditEvent)
            .where(AuditEvent.action == "credits.adjust")
            .order_by(AuditEvent.seq)
        )
        told = [(e.actor_kind, str(e.target_id), e.details["after"]) for e in events]
    assert told == [
        ("admin", user, {"balance": balance + 200, "note": "Sorry."}),
        ("staff", user, {"balance": balance, "note": "Oh."}),
    ]


async def test_staff_gives_the_day_s_messages_again(server: Server) -> None:
    admin, staff = await server.admin("plans"), await server.staff(2)
    client = await server.client()
    user = await id_of(client)
    await admin.put(f"/admin/users/{user}/limits", json={"daily_conversations": 4})
    for _ in range(3):
        await spend(server, user, 10, Call("chat", "openai/some"))
    before = (await client.get("/usage/limits")).json["conversations"]

    answer = await staff.post(f"/staff/users/{user}/limits/reset")
    after = (await staff.get(f"/staff/users/{user}/limits")).json["conversations"]

    assert (before["used"], before["remaining"]) == (3, 1)
    assert answer.status == 204
    assert (after["used"], after["remaining"]) == (0, 4)


async def test_usage_is_grouped_as_one_asks(server: Server) -> None:
    client = await server.client()
    user = await id_of(client)
    key = UUID(int=5)
    await spend(server, user, 30, Call("chat", "openai/some"))
    await spend(server, user, 20, Call("chat", "bedrock/other"))
    await spend(server, user, 10, Call("gateway", "openai/some", key))

    whole = (await client.get("/usage")).json
    models = (await client.get("/usage?group_by=model")).json["items"]
    both = (await client.get("/usage?group_by=kind,key")).json["items"]
    twice = (await client.get("/usage?group_by=kind&group_by=key")).json["items"]
    today = utcnow().date()
    old = await client.get(f"/usage?to={today - timedelta(days=1)}&group_by=day")

    assert whole["total"]["credits"] == whole["items"][0]["credits"] == 60
    assert whole["total"]["requests"] == 3
    assert whole["to"] == str(today)
    assert [(m["model"], m["credits"]) for m in models] == [
        ("bedrock/other", 20),
        ("openai/some", 40),
    ]
    assert [(one["kind"], one["key"], one["credits"]) for one in both] == [
        ("chat", None, 50),
        ("gateway", str(key), 10),
    ]
    assert twice == both
    assert old.json["items"] == []
    assert old.json["total"]["credits"] == 0
    other = await server.client("grace")
    assert (await other.get("/usage")).json["total"]["requests"] == 0


async def test_usage_is_never_told_by_half(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "_MOST_ROWS", 2)
    client = await server.client()
    user = await id_of(client)
    for model in ("openai/a", "openai/b"):
        await spend(server, user, 10, Call("chat", model))
    just = await client.get("/usage?group_by=model")
    await spend(server, user, 10, Call("chat", "openai/c"))

    too_many = await client.get("/usage?group_by=model")
    whole = await client.get("/usage")

    assert just.json["total"]["credits"] == 20
    assert too_many.status == 422
    assert too_many.json["errors"][0]["path"] == "group_by"
    assert whole.json["total"]["credits"] == 30


async def test_a_deleted_user_has_nothing_that_the_desk_could_change(
    server: Server,
) -> None:
    """Else a restoration would bring back the plan, and not what it gave."""
    admin = await server.admin("plans", "credits")
    staff = await server.staff(3)
    client = await server.client()
    user = await id_of(client)
    form = {"password": "a long pass phrase"}
    gone = await client.request("DELETE", "/users/me", json=form)
    admins, staffs = f"/admin/users/{user}", f"/staff/users/{user}"
    gift = {"amount": 5, "note": "A present."}

    answers = [
        await admin.put(f"{admins}/plan", json={"plan": "pro"}),
        await admin.get(f"{admins}/limits"),
        await admin.put(f"{admins}/limits", json={"daily_conversations": 9}),
        await admin.post(f"{admins}/limits/reset"),
        await admin.post(f"{admins}/credits", json=gift),
        await staff.get(f"{staffs}/limits"),
        await staff.post(f"{staffs}/limits/reset"),
        await staff.post(f"{staffs}/credits", json=gift),
    ]

    assert gone.status == 204
    assert [answer.status for answer in answers] == [404] * 8
    assert (await admin.get(f"{admins}/credits")).json["items"] == []


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("group_by=user", "group_by.0"),
        ("from=2026-13-01", "from"),
        ("from=2026-11-02&to=2026-11-01", "from"),
        ("from=2020-01-01&to=2026-11-01", "from"),
    ],
)
async def test_a_wrong_question_names_the_field(
    server: Server, query: str, path: str
) -> None:
    client = await server.client()

    answer = await client.get(f"/usage?{query}")

    assert answer.status == 422
    assert answer.json["errors"][0]["path"] == path


@pytest.mark.parametrize(
    ("query", "days"),
    [
        ("to=0001-01-02", ("0001-01-01", "0001-01-02")),
        ("from=9999-12-31&to=9999-12-31", ("9999-12-31", "9999-12-31")),
    ],
)
async def test_the_first_and_the_last_days_there_are_can_be_asked_for(
    server: Server, query: str, days: tuple[str, str]
) -> None:
    client = await server.client()

    answer = await client.get(f"/usage?{query}")

    assert (answer.json["from"], answer.json["to"]) == days


async def test_a_server_that_stops_settles_what_it_held(serve: Any) -> None:
    """TRUST M1."""
    async with serve() as server:
        user = await id_of(await server.client())
        await spend(server, user, 700, Call("chat", "openai/some"))
        database = server.runtime.database
    async with serve() as server:
        database = server.runtime.database
        async with database.unit_of_work(read_only=True) as session:
            amounts = (await session.scalars(select(CreditEntry.amount))).all()

    assert -700 in amounts
