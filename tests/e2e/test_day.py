"""A user's whole life on a started server, and what the audit tells of it after."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from tests import mailbox
from tests.client import Answer
from tests.conftest import desk_form
from tests.e2e.conftest import Begin, NewDatabase
from tests.e2e.processes import PASSWORD, Server, environment, until
from tests.fakes.openai import FakeOpenAI
from tests.integration.test_mfa import code_of, enroll

pytestmark = pytest.mark.asyncio(loop_scope="session")

EMAIL = "ada@example.com"
LOGIN = {"login": EMAIL, "password": PASSWORD}

FREE, PRICED = "openai/fake-large", "openai/fake-small"
WORDS = 100
COST = 1_000_000
"""Of a call whose answer is as long as it may be; its input is for nothing."""
CATALOGUE = f"""
["{PRICED}"]
max_output_tokens = {WORDS}
prices = {{ input = 0, output = {COST // WORDS} }}
"""

AFFORDABLE, AT_ONCE = 60, 200
REST = COST // 2
BALANCE = AFFORDABLE * COST + REST
"""More than the first plan has given by then."""

STEPS = [
    ("system", "admin.create"),
    ("admin", "desk.login"),
    ("admin", "staff.create"),
    ("staff", "desk.login"),
    ("admin", "plan.create"),
    ("user", "user.register"),
    ("user", "user.login"),
    ("user", "mfa.enable"),
    ("user", "user.login"),
    ("admin", "limits.change"),
    ("staff", "limits.reset"),
    ("admin", "limits.change"),
    ("admin", "plan.assign"),
    ("user", "user.delete"),
    ("admin", "user.restore"),
    ("user", "user.login"),
    ("user", "user.delete"),
    ("admin", "erasure.request"),
    ("admin", "user.erase"),
]


class HeldOpenAI(FakeOpenAI):
    """Begins no answer before its gate is open: whoever is admitted stays in a call."""

    def __init__(self) -> None:
        super().__init__()
        self.plan.words = WORDS
        self.gate = asyncio.Event()

    async def play(self, *args: Any) -> web.StreamResponse:
        await self.gate.wait()
        return await super().play(*args)


@pytest_asyncio.fixture(loop_scope="session")
async def model() -> AsyncIterator[HeldOpenAI]:
    async with HeldOpenAI() as fake:
        yield fake


@pytest_asyncio.fixture(loop_scope="session")
async def workroom(
    begin: Begin, new_database: NewDatabase, model: HeldOpenAI, tmp_path: Path
) -> Server:
    catalogue = tmp_path / "models.toml"
    catalogue.write_text(CATALOGUE)
    return await begin(
        EMAIL_VERIFICATION="required",
        MAX_RUNNING_TURNS="1000",
        MODEL_CATALOGUE=str(catalogue),
        OPENAI_BASE_URL=model.base_url,
        ADMIN_EMAIL="root@desk.example.com",
        ADMIN_PASSWORD=PASSWORD,
        **await new_database(),
    )


class Day:
    """Who takes part in it; `path` is the user's, as the desk calls it."""

    def __init__(self, server: Server, model: HeldOpenAI) -> None:
        self.server = server
        self.model = model
        self.admin, self.staff = server.anonymous(), server.anonymous()
        self.user = server.anonymous()
        self.user_id = ""
        self.recovery_codes: list[str] = []
        self.balances: list[int] = []

    @property
    def path(self) -> str:
        return f"/users/{self.user_id}"

    async def balance(self) -> int:
        answer = await self.admin.get(f"/admin{self.path}/limits")
        self.balances.append(answer.json["credits"]["balance"])
        return self.balances[-1]

    async def ledger(self) -> list[tuple[str, int]]:
        """The oldest entry first."""
        answer = await self.admin.get(f"/admin{self.path}/credits?limit=100")
        assert answer.json["next_cursor"] is None
        return [(one["kind"], one["amount"]) for one in reversed(answer.json["items"])]

    async def audit(self) -> list[dict[str, Any]]:
        """The oldest event first."""
        answer = await self.admin.get("/admin/audit?limit=100")
        assert answer.json["next_cursor"] is None
        return list(reversed(answer.json["items"]))

    def mails(self) -> list[str]:
        """The texts of what was mailed to the user and is still there."""
        folder = self.server.folder / "data" / "mail"
        found = (mailbox.read(path.read_bytes()) for path in folder.glob("*.eml"))
        return [mailbox.text_of(mail) for mail in found if mail["To"] == EMAIL]


def done(answer: Answer, status: int = 204) -> Any:
    assert answer.status == status, answer.body
    return answer.json if answer.body else None


async def test_a_day_from_registering_to_being_erased(
    workroom: Server, model: HeldOpenAI
) -> None:
    """TRUST M1, L4, T4, D3: they hold together, not only each for itself."""
    day = Day(workroom, model)
    await the_desk_opens(day)
    await the_user_registers_and_verifies(day)
    await the_user_takes_a_second_factor(day)
    await the_user_meets_the_limit_of_the_day(day)
    await the_admin_changes_the_plan(day)
    chat = await the_credits_run_out(day)
    await the_user_goes_and_is_brought_back(day, chat)
    await the_user_goes_for_good(day)
    await the_audit_tells_it_all(day)


async def the_desk_opens(day: Day) -> None:
    await day.admin.login("admin", PASSWORD, desk="/admin")
    form = desk_form("grace")
    done(await day.admin.post("/admin/staff", json=form | {"level": 2}), 201)
    await day.staff.login("grace", form["password"], desk="/staff")
    plan = {"name": "research", "monthly_credits": BALANCE}
    done(await day.admin.post("/admin/plans", json=plan), 201)


async def the_user_registers_and_verifies(day: Day) -> None:
    form = {"email": EMAIL, "password": PASSWORD}
    done(await day.user.post("/auth/register", json=form), 202)
    assert (await day.user.post("/auth/login", json=LOGIN)).status == 401

    async def mailed() -> bool:
        return len(day.mails()) > 0

    await until(mailed, "the mail with the link")
    (text,) = day.mails()
    token = {"token": mailbox.token_in(text), "password": PASSWORD}
    verified = done(await day.user.post("/auth/verify-email", json=token), 200)

    assert verified["email_verified_at"] is not None
    assert (await day.user.post("/auth/verify-email", json=token)).status == 422
    day.user_id = verified["id"]


async def the_user_takes_a_second_factor(day: Day) -> None:
    await day.user.login(EMAIL, PASSWORD)
    secret, day.recovery_codes = await enroll(day.user)

    without = await day.user.post("/auth/login", json=LOGIN)
    otp = {"otp": code_of(secret)}
    both = await day.user.post("/auth/login", json=LOGIN | otp)

    assert (without.status, without.json["code"]) == (401, "mfa_required")
    day.user.use(done(both, 200))


async def the_user_meets_the_limit_of_the_day(day: Day) -> None:
    limits = {"daily_conversations": 3}
    done(await day.admin.put(f"/admin{day.path}/limits", json=limits))
    chat = await day.user.chat(model=FREE, title="Named")
    day.model.gate.set()
    for _ in range(3):
        await day.user.reply(chat, "Say 3 words")

    question = {"content": "Say 3 words"}
    refused = await day.user.post(f"/chats/{chat}/messages", json=question)
    done(await day.staff.post(f"/staff{day.path}/limits/reset"))
    for _ in range(3):
        await day.user.reply(chat, "Say 3 words")
    again = await day.user.post(f"/chats/{chat}/messages", json=question)

    assert (refused.status, refused.json["code"]) == (429, "daily_limit_reached")
    assert int(refused.headers["Retry-After"]) > 0
    assert (again.status, again.json["code"]) == (429, "daily_limit_reached")


async def the_admin_changes_the_plan(day: Day) -> None:
    done(await day.admin.put(f"/admin{day.path}/limits", json={}))
    plan = {"plan": "research"}
    done(await day.admin.put(f"/admin{day.path}/plan", json=plan))

    limits = (await day.user.get("/usage/limits")).json

    assert limits["plan"] == "research"
    assert limits["conversations"]["limit"] is None
    assert limits["credits"]["monthly"] == limits["credits"]["balance"] == BALANCE


async def the_credits_run_out(day: Day) -> str:
    """Each call holds what it can cost until all have been decided: so it is exact."""
    day.model.gate.clear()
    day.model.calls.clear()
    chats = await asyncio.gather(
        *(day.user.chat(model=PRICED, title="Named") for _ in range(AT_ONCE))
    )
    question = {"content": "Go on and on.", "stream": False}
    calls = [
        asyncio.create_task(day.user.post(f"/chats/{chat}/messages", json=question))
        for chat in chats
    ]

    async def decided() -> bool:
        await day.balance()
        refused = sum(call.done() for call in calls)
        return refused + len(day.model.calls) == AT_ONCE

    async def booked() -> bool:
        await day.balance()
        return sum(amount for _, amount in await day.ledger()) == REST

    await until(decided, "every call to be admitted or refused")
    day.model.gate.set()
    answers = await asyncio.gather(*calls)
    await until(booked, "all that was spent to be in the ledger")

    counted = Counter((a.status, a.json.get("code")) for a in answers)
    refused = AT_ONCE - AFFORDABLE
    assert counted == {(201, None): AFFORDABLE, (402, "insufficient_credits"): refused}
    assert len(day.model.calls) == AFFORDABLE
    paid = [a.json["credits"] for a in answers if a.status == 201]
    assert paid == [COST] * AFFORDABLE
    await the_books_agree(day)
    last = await day.user.post(f"/chats/{chats[0]}/messages", json=question)
    assert last.status == 402
    return next(c for c, a in zip(chats, answers, strict=True) if a.status == 201)


async def the_books_agree(day: Day) -> None:
    """The balance is what is left, and the sum of the ledger, and was never below 0."""
    ledger = await day.ledger()
    granted = sum(amount for kind, amount in ledger if kind == "grant")
    used = sum(amount for kind, amount in ledger if kind == "usage")
    assert (granted, used) == (BALANCE, -AFFORDABLE * COST)
    assert await day.balance() == REST == granted + used
    assert min(day.balances) >= 0


async def the_user_goes_and_is_brought_back(day: Day, chat: str) -> None:
    gone = {"password": PASSWORD, "reason": "Enough."}
    done(await day.user.delete("/users/me", json=gone))
    otp = {"otp": day.recovery_codes[0]}
    while_gone = await day.user.post("/auth/login", json=LOGIN | otp)
    (deleted,) = (await day.admin.get("/admin/deleted-users")).json["items"]

    done(await day.admin.post(f"/admin/deleted-users/{day.user_id}/restore"))
    old_session = await day.user.get("/users/me")
    back = await day.user.post("/auth/login", json=LOGIN | otp)

    assert (while_gone.status, old_session.status) == (401, 401)
    assert (deleted["id"], deleted["email"]) == (day.user_id, EMAIL)
    assert (deleted["deleted_by"], deleted["reason"]) == ("user", "Enough.")
    day.user.use(done(back, 200))
    question, reply = reversed(await day.user.messages(chat))
    assert (question["text"], reply["status"]) == ("Go on and on.", "complete")
    await the_books_agree(day)


async def the_user_goes_for_good(day: Day) -> None:
    done(await day.user.delete("/users/me", json={"password": PASSWORD}))
    path = f"/admin/deleted-users/{day.user_id}"

    report = done(await day.admin.post(f"{path}/erase"), 200)

    assert report["user_id"] == day.user_id
    assert report["rows"]["chats"] == AT_ONCE + 1
    assert (await day.admin.post(f"{path}/restore")).status == 404
    assert (await day.admin.get(f"/admin{day.path}")).status == 404
    assert (await day.admin.get("/admin/deleted-users")).json["items"] == []
    assert day.mails() == []


async def the_audit_tells_it_all(day: Day) -> None:
    events = await day.audit()

    assert [(e["actor_kind"], e["action"]) for e in events] == STEPS
    assert [e["seq"] for e in events] == list(range(1, len(STEPS) + 1))
    *earlier, erased = [
        event
        for event in events
        if day.user_id in {event["actor_id"], event["target_id"]}
    ]
    assert [*earlier, erased] == events[STEPS.index(("user", "user.register")) :]
    assert {event["details"] is None for event in earlier} == {True}
    assert erased["details"]["after"]["rows"]["chats"] == AT_ONCE + 1
    assert EMAIL not in json.dumps(events)
    (audit,) = await asyncio.to_thread(doctor_on, "audit", day.server)
    assert audit["state"] == "ok", audit
    assert audit["detail"] == f"{len(STEPS)} events, all as they were written"


def doctor_on(name: str, server: Server) -> list[dict[str, str]]:
    """What the doctor says of that, beside the running server."""
    told = subprocess.run(
        [sys.executable, "-m", "app", "doctor", "--json"],
        cwd=server.folder,
        env=environment({"DATA_DIR": "data", **server.settings}),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [check for check in json.loads(told.stdout) if check["name"] == name]
