"""Reports of leaked keys: what is a key ends at once, and no answer tells of it."""

import asyncio
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.core.database import utcnow
from app.core.keys import KeyKind, new_key
from app.core.tokens import fingerprint
from app.models import ApiKey, AuditEvent, Job, ServiceKey, User
from app.schemas.apikey import MOST_LEAKED, LeakReport
from app.services import audit
from app.services.apikey import Leak, end_leaked, report_leak
from tests import mailbox
from tests.client import Answer
from tests.conftest import Server, ServerFactory
from tests.integration.test_apikey_rotation import rotated, statuses
from tests.integration.test_apikeys import made, with_key
from tests.integration.test_statements import counted

PLACE = "https://example.com/dump?line=7"
USERS = "A leaked API key of Workroom was revoked"
ADMINS = "A leaked service key of Workroom was revoked"


async def reported(server: Server, **report: Any) -> Answer:
    """Tell it as a stranger."""
    return await server.anonymous().post("/apikeys/leaked", json=report)


async def ended(server: Server, table: Any, *ids: str) -> None:
    """Wait until these keys are revoked: that happens after the answer."""
    which = select(table.id).where(
        table.id.in_([UUID(one) for one in ids]), table.revoked_at.is_(None)
    )
    async with asyncio.timeout(10):
        while True:
            async with server.runtime.database.unit_of_work(read_only=True) as session:
                if not (await session.scalars(which)).all():
                    return
            await asyncio.sleep(0.01)


async def leaks(server: Server) -> list[AuditEvent]:
    """What the audit tells of them."""
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        found = await session.scalars(
            select(AuditEvent)
            .where(AuditEvent.action.in_(["key.leak", "service_key.leak"]))
            .order_by(AuditEvent.seq)
        )
        return list(found)


async def test_a_leaked_key_ends_and_its_owner_and_the_audit_are_told(
    server: Server,
) -> None:
    """TRUST T4."""
    owner = await server.client()
    key, other = await made(owner, name="backup & sync"), await made(owner)
    assert await statuses(server, key, other) == [200, 200]

    answer = await reported(server, key=key["key"], url=PLACE)
    await ended(server, ApiKey, key["id"])

    assert (answer.status, answer.json) == (202, {"status": "accepted"})
    assert await statuses(server, key, other) == [401, 200]
    assert [one["id"] for one in (await owner.get("/apikeys")).json["items"]] == [
        other["id"]
    ]
    mail = (await mailbox.mails(server, "ada@example.com"))[-1]
    assert mail["Subject"] == USERS
    for text in (mailbox.text_of(mail), mailbox.text_of(mail, "html")):
        assert key["prefix"] in text
        assert PLACE in text
        assert key["key"] not in text
    (event,) = await leaks(server)
    assert (event.action, event.actor_kind) == ("key.leak", "system")
    me = (await owner.get("/auth/me")).json["id"]
    assert (event.target_kind, str(event.target_id)) == ("user", me)
    assert event.details is not None
    assert event.details["ip"] == "127.0.0.1"
    assert event.details["after"] == {"url": PLACE}
    assert event.details["before"]["id"] == key["id"]
    assert key["key"] not in str(event.details)


async def test_many_keys_of_many_people_end_by_one_report(server: Server) -> None:
    people = [await server.client(name) for name in ("ada", "bob")]
    keys = [await made(one) for one in people for _ in range(2)]
    texts = [*(key["key"] for key in keys), "no key"]
    filling = [new_key(KeyKind.USER) for _ in range(MOST_LEAKED - len(texts))]

    answer = await reported(server, keys=[*filling, *texts])
    await ended(server, ApiKey, *(key["id"] for key in keys))
    too_many = await reported(server, keys=[*filling, *texts, "one more"])

    assert (answer.status, too_many.status) == (202, 422)
    assert await statuses(server, *keys) == [401] * 4
    assert len(await leaks(server)) == 4
    for name in ("ada", "bob"):
        mailed = await mailbox.subjects(server, f"{name}@example.com")
        assert mailed.count(USERS) == 2


async def some_of_each_kind(server: Server) -> list[dict[str, Any]]:
    """Reports of live keys, of such as once were, and of what never was one."""
    owner = await server.client()
    live, old, revoked = [await made(owner) for _ in range(3)]
    await owner.delete(f"/apikeys/{revoked['id']}")
    await rotated(owner, old, 600)
    service = await server.service_key("introspect")
    texts = [live["key"], old["key"], revoked["key"], service.key]
    texts += [new_key(KeyKind.USER), new_key(KeyKind.SERVICE), live["key"][:-1]]
    texts += ["", "wr_' OR '1'='1", "ü" * 10_000]
    return [{"key": text} for text in texts]


async def test_the_answer_is_the_same_whatever_was_sent(server: Server) -> None:
    reports = [
        *await some_of_each_kind(server),
        {},
        {"keys": []},
        {"keys": ["one", "another"], "url": "on a sheet of paper"},
        {"key": "something", "source": "a field that we do not know"},
    ]

    answers = [await reported(server, **report) for report in reports]

    varying = {"x-request-id", "date", "server-timing", "ratelimit-remaining"}
    alike = {
        (
            answer.status,
            answer.body,
            *(
                (name.lower(), value)
                for name, value in answer.headers.items()
                if name.lower() not in varying | {"ratelimit-reset"}
            ),
        )
        for answer in answers
    }
    assert len(alike) == 1, alike
    assert answers[0].status == 202


async def test_a_report_is_the_same_work_whatever_was_sent(server: Server) -> None:
    """It is one row of a job: who has which key is looked up after the answer."""
    costs = []
    for report in await some_of_each_kind(server):
        with counted(server) as statements:
            async with server.runtime.database.unit_of_work() as session:
                report_leak(session, LeakReport(**report), ip=None)
        costs.append(tuple(statements))

    assert len(set(costs)) == 1
    assert len(costs[0]) == 1
    assert costs[0][0].startswith("INSERT INTO jobs")


async def test_a_report_that_is_sent_again_and_at_once_happens_once(
    server: Server,
) -> None:
    owner = await server.client()
    key = await made(owner)

    await asyncio.gather(*[reported(server, key=key["key"]) for _ in range(5)])
    await ended(server, ApiKey, key["id"])
    again = await reported(server, keys=[key["key"]] * 3)
    leak = report_of(key["key"])
    await end_leaked(server.runtime.database, server.runtime.principals, leak)

    assert again.status == 202
    assert len(await leaks(server)) == 1
    assert (await mailbox.subjects(server, "ada@example.com")).count(USERS) == 1


def report_of(*texts: str) -> Leak:
    """What is kept of a report."""
    return Leak([fingerprint(text).hex() for text in texts], None, None)


async def test_a_leaked_key_takes_its_open_streams_with_it(
    serve: ServerFactory, fake_openai: Any
) -> None:
    """TRUST T4."""
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        key = await made(await server.client())
        client = with_key(server, key["key"])
        chat = await client.chat(model="openai/fake-small")
        async with client.asking(chat, "Say 50 words") as stream:
            await stream.until("delta")
            await reported(server, key=key["key"])
            rest = await stream.all()

    assert rest[-1].data["problem"]["code"] == "unauthenticated"


async def test_over_redis_a_leaked_key_ends_in_every_process(
    serve: ServerFactory, redis_url: str
) -> None:
    """TRUST T4: within a second."""
    async with serve(REDIS_URL=redis_url) as one, serve(REDIS_URL=redis_url) as other:
        key = await made(await one.client())
        assert await statuses(other, key) == [200]

        await reported(one, key=key["key"])
        for _ in range(100):
            after = await statuses(other, key)
            if after == [401]:
                break
            await asyncio.sleep(0.01)

    assert after == [401]


@pytest.mark.parametrize("which", ["old", "new"])
async def test_a_leak_within_a_grace_ends_both(server: Server, which: str) -> None:
    """TRUST T4: what held the one may well hold the other."""
    owner = await server.client()
    old = await made(owner)
    new = await rotated(owner, old, 600)
    assert await statuses(server, old, new) == [200, 200]

    await reported(server, key={"old": old, "new": new}[which]["key"])
    await ended(server, ApiKey, old["id"])

    assert await statuses(server, old, new) == [401, 401]


async def test_what_was_a_key_before_a_rotation_ends_nothing(server: Server) -> None:
    owner = await server.client()
    old = await made(owner)
    new = await rotated(owner, old, 0)
    leak = report_of(old["key"])

    await end_leaked(server.runtime.database, server.runtime.principals, leak)

    assert await statuses(server, old, new) == [401, 200]
    assert await leaks(server) == []


async def test_a_leaked_service_key_ends_and_the_admins_who_make_them_are_told(
    server: Server,
) -> None:
    """TRUST T4."""
    key = await server.service_key("introspect")
    application = server.anonymous()
    application.headers["Authorization"] = f"Bearer {key.key}"
    for name, permissions in (("root", ["settings"]), ("clerk", ["users"])):
        await server.admin(*permissions, name=name)
    form = {"token": "garbage"}
    before = await application.post("/auth/introspect", data=form)

    await reported(server, key=key.key, url=PLACE)
    await ended(server, ServiceKey, str(key.id))
    after = await application.post("/auth/introspect", data=form)

    assert (before.status, after.status) == (200, 401)
    assert ADMINS in await mailbox.subjects(server, "root@desk.example.com")
    assert ADMINS not in await mailbox.subjects(server, "clerk@desk.example.com")
    (event,) = await leaks(server)
    assert event.action == "service_key.leak"
    assert (event.target_kind, event.target_id) == ("service_key", key.id)


async def test_a_suspended_users_leaked_key_does_not_come_back(server: Server) -> None:
    owner = await server.client()
    key = await made(owner)
    user = UUID((await owner.get("/auth/me")).json["id"])
    await set_status(server, user, "suspended")

    await reported(server, key=key["key"])
    await ended(server, ApiKey, key["id"])
    await set_status(server, user, "active")

    assert await statuses(server, key) == [401]
    assert USERS not in await mailbox.subjects(server, "ada@example.com")
    assert len(await leaks(server)) == 1


async def set_status(server: Server, user: UUID, status: str) -> None:
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(update(User).where(User.id == user).values(status=status))
    server.runtime.principals.forget_user(user)


async def test_a_job_ends_what_a_process_that_died_left(server: Server) -> None:
    """TRUST F4; it holds no key."""
    key = await made(await server.client())
    async with server.runtime.database.unit_of_work() as session:
        report_leak(session, LeakReport(key=key["key"]), ip=None)
    assert await statuses(server, key) == [200]

    async with server.runtime.database.unit_of_work() as session:
        job = (
            await session.scalars(select(Job).where(Job.name == "apikey.end_leaked"))
        ).one()
        args, job.run_at = job.args, utcnow()
    await ended(server, ApiKey, key["id"])

    assert await statuses(server, key) == [401]
    assert key["key"] not in str(args)


async def test_what_a_stranger_writes_comes_into_no_mail(server: Server) -> None:
    key = await made(await server.client())
    words = "<b>Log in</b> at https://evil.example now"

    await reported(server, key=key["key"], url=words)
    await ended(server, ApiKey, key["id"])

    mail = (await mailbox.mails(server, "ada@example.com"))[-1]
    assert mail["Subject"] == USERS
    assert "evil.example" not in mailbox.text_of(mail) + mailbox.text_of(mail, "html")
    (event,) = await leaks(server)
    assert event.details is not None
    assert event.details["after"] == {"url": words}


async def test_an_erasure_empties_what_the_audit_tells_of_a_leak(
    server: Server,
) -> None:
    """TRUST D3."""
    owner = await server.client()
    key = await made(owner, name="Ada's laptop")
    user = UUID((await owner.get("/auth/me")).json["id"])
    await reported(server, key=key["key"], url="https://example.com/ada")
    await ended(server, ApiKey, key["id"])

    async with server.runtime.database.unit_of_work() as session:
        await audit.forget(session, user)

    (event,) = await leaks(server)
    assert event.details is None


async def test_reports_are_limited_by_address_whoever_sends_them(
    serve: ServerFactory,
) -> None:
    async with serve(RATE_LIMITS="auth.leaked=2/minute") as server:
        client = await server.client()
        answers = [
            await client.post("/apikeys/leaked", json={"key": "x"}),
            await reported(server, key="x"),
            await client.post("/apikeys/leaked", json={"key": "x"}),
        ]

    assert [answer.status for answer in answers] == [202, 202, 429]
