"""Failed logins, of an account and of an address (TRUST P3, P4, P6)."""

import asyncio
from collections import Counter
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.core.database import Database, utcnow
from app.core.passwords import Passwords
from app.models import AuditEvent, Job, LoginCounter, User
from tests.client import Answer, Client
from tests.conftest import Server
from tests.integration.things import mailed_link

PASSWORD = "a long pass phrase"
HOME, OFFICE, AFAR = "198.51.100.1", "198.51.100.2", "203.0.113.9"
PROXIED = {"TRUSTED_PROXIES": "127.0.0.1"}


async def register(client: Client, name: str = "ada") -> UUID:
    form = {"email": f"{name}@example.com", "username": name, "password": PASSWORD}
    answer = await client.post("/auth/register", json=form)
    return UUID(answer.json["id"])


async def log_in(
    client: Client, password: str = PASSWORD, *, name: str = "ada", ip: str = HOME
) -> Answer:
    return await client.post(
        "/auth/login",
        json={"login": name, "password": password},
        headers={"X-Forwarded-For": ip},
    )


async def fail(client: Client, times: int = 5, **where: str) -> list[int]:
    return [(await log_in(client, "wrong", **where)).status for _ in range(times)]


async def pass_time(database: Database, seconds: float) -> None:
    """Have all that is counted be so much older."""
    async with database.unit_of_work() as session:
        for row in await session.scalars(select(LoginCounter)):
            for column in ("forget_at", "locked_until", "expires_at"):
                if (moment := getattr(row, column)) is not None:
                    setattr(row, column, moment - timedelta(seconds=seconds))


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is hashed from here on: each password, once for each time."""
    seen: list[str] = []
    verify = Passwords._verify

    def counting(self: Passwords, password: str, stored: str | None) -> bool:
        seen.append(password)
        return verify(self, password, stored)

    monkeypatch.setattr(Passwords, "_verify", counting)
    return seen


async def test_five_failures_lock_an_account_for_five_minutes(
    serve: Any, database: Database
) -> None:
    """TRUST P4."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        assert await fail(client) == [401] * 5

        locked = await log_in(client)
        await pass_time(database, 299)
        still = await log_in(client)
        await pass_time(database, 2)
        free = await log_in(client)

    assert (locked.status, locked.json["code"]) == (401, "invalid_credentials")
    assert (still.status, free.status) == (401, 200)


async def test_a_lock_grows_and_has_an_end(serve: Any, database: Database) -> None:
    """TRUST P4."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        await fail(client, 4)
        waits = []
        for _ in range(7):
            await fail(client, 1)
            waits.append(await _wait(database))
            await pass_time(database, waits[-1])

        assert waits == pytest.approx([300, 600, 1200, 2400, 3600, 3600, 3600], abs=5)
        assert (await log_in(client)).status == 200


async def _wait(database: Database) -> float:
    async with database.unit_of_work(read_only=True) as session:
        until = await session.scalar(
            select(LoginCounter.locked_until).where(
                LoginCounter.locked_until.is_not(None)
            )
        )
    assert until is not None
    return (until - utcnow()).total_seconds()


async def test_what_is_tried_while_locked_does_not_lengthen_the_lock(
    serve: Any, database: Database
) -> None:
    """TRUST P4: or a stranger could keep it up for good."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        await fail(client, 20)
        assert await _wait(database) <= 300

        await pass_time(database, 300)
        assert (await log_in(client)).status == 200


async def test_a_success_clears_the_accounts_counter(serve: Any) -> None:
    """TRUST P4."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        for _ in range(3):
            await fail(client, 4)
            assert (await log_in(client)).status == 200


async def test_failures_are_forgotten_after_a_day(
    serve: Any, database: Database
) -> None:
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        await fail(client, 4)
        await pass_time(database, 86_400)
        await fail(client, 4)

        assert (await log_in(client)).status == 200


async def test_a_stranger_does_not_lock_out_an_owner_who_is_known_here(
    serve: Any,
) -> None:
    """TRUST P4."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        assert (await log_in(client, ip=HOME)).status == 200

        await fail(client, 10, ip=AFAR)

        assert (await log_in(client, ip=AFAR)).status == 401
        assert (await log_in(client, ip=OFFICE)).status == 401
        assert (await log_in(client, ip=HOME)).status == 200
        # The owner's coming home gives the stranger no further tries.
        assert (await log_in(client, ip=AFAR)).status == 401


async def test_an_owner_is_let_in_where_a_mailed_link_was_used(
    serve: Any, database: Database
) -> None:
    """TRUST P4: also at a new place, with a stranger who never stops."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        user_id = await register(client)
        await fail(client, 10, ip=AFAR)

        async with database.unit_of_work() as session:
            await server.runtime.lockout.welcome(session, user_id, OFFICE)
        await fail(client, 10, ip=AFAR)

        assert (await log_in(client, ip=OFFICE)).status == 200


async def test_a_known_place_has_a_limit_of_its_own(serve: Any) -> None:
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        await log_in(client, ip=HOME)

        await fail(client, 5, ip=HOME)

        assert (await log_in(client, ip=HOME)).status == 401
        assert (await log_in(client, ip=OFFICE)).status == 200


async def test_one_accounts_failures_are_not_anothers(serve: Any) -> None:
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client, "ada")
        await register(client, "bob")

        await fail(client, 5, name="ada")
        await fail(client, 5, name="nobody")

        assert (await log_in(client, name="bob")).status == 200


async def test_an_account_is_counted_by_whatever_name(serve: Any) -> None:
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)

        await fail(client, 3, name="ada")
        await fail(client, 2, name="ADA@example.com")

        assert (await log_in(client)).status == 401


async def test_an_address_may_fail_so_often_in_an_hour(
    serve: Any, database: Database
) -> None:
    """TRUST P4: who tries one password on many accounts is no account's failure."""
    async with serve(**PROXIED, LOCKOUT_ADDRESS_FAILURES="6") as server:
        client = server.anonymous()
        await register(client)
        for number in range(6):
            await fail(client, 1, name=f"name{number}", ip=AFAR)

        refused = await log_in(client, ip=AFAR)
        elsewhere = await log_in(client, ip=HOME)
        await pass_time(database, 3601)
        again = await log_in(client, ip=AFAR)

    assert (refused.status, refused.json["code"]) == (429, "rate_limited")
    assert 3590 < int(refused.headers["Retry-After"]) <= 3600
    assert (elsewhere.status, again.status) == (200, 200)


async def test_a_success_does_not_clear_the_addresss_counter(serve: Any) -> None:
    """TRUST P4."""
    async with serve(**PROXIED, LOCKOUT_ADDRESS_FAILURES="6") as server:
        client = server.anonymous()
        await register(client)
        await register(client, "mallory")
        statuses = []
        for number in range(4):
            await fail(client, 2, name=f"name{number}", ip=AFAR)
            statuses.append((await log_in(client, name="mallory", ip=AFAR)).status)

    assert statuses == [200, 200, 429, 429]


async def test_a_forged_address_gets_no_further_tries(server: Server) -> None:
    """TRUST P6."""
    client = server.anonymous()
    await register(client)
    assert (await log_in(client)).status == 200

    for number in range(5):
        await fail(client, 1, ip=f"203.0.113.{number}")

    assert (await log_in(client, ip=OFFICE)).status == 401


async def test_of_many_guesses_at_once_no_more_are_judged(
    serve: Any, database: Database
) -> None:
    """TRUST P4: the right one among the last is refused like the others."""
    async with serve(**PROXIED, LOCKOUT_FAILURES="3") as server:
        client = server.anonymous()
        await register(client)

        guesses = [log_in(client, "wrong") for _ in range(20)]
        statuses = Counter(a.status for a in await asyncio.gather(*guesses))

    assert statuses == {401: 20}
    async with database.unit_of_work(read_only=True) as session:
        failures = await session.scalars(select(LoginCounter.failures))
        assert sorted(failures) == [3, 3]


@pytest.mark.parametrize("path", ["right", "wrong", "unknown", "suspended", "locked"])
async def test_each_login_hashes_one_password(
    serve: Any, database: Database, hashes: list[str], path: str
) -> None:
    """TRUST P3: and what is wrong is answered in the same words."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        if path == "suspended":
            async with database.unit_of_work() as session:
                await session.execute(update(User).values(status="suspended"))
        if path == "locked":
            await fail(client)
        hashes.clear()

        name = "nobody" if path == "unknown" else "ada"
        password = "wrong" if path == "wrong" else PASSWORD
        answer = await log_in(client, password, name=name)

    assert hashes == [password]
    assert answer.status == (200 if path == "right" else 401)
    if path != "right":
        assert answer.json["detail"] == "These credentials are not right."


async def test_unlocking_and_forgetting(serve: Any, database: Database) -> None:
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        user_id = await register(client)
        lockout = server.runtime.lockout
        await log_in(client, ip=HOME)
        await fail(client, 5, ip=HOME)
        await fail(client, 5, ip=AFAR)

        async with database.unit_of_work() as session:
            await lockout.clear(session, user_id)
        assert (await log_in(client, ip=HOME)).status == 200
        assert (await log_in(client, ip=AFAR)).status == 200

        async with database.unit_of_work() as session:
            await lockout.forget(session, user_id)
            left = await session.scalars(select(LoginCounter.account_id))
            assert set(left) == {None}


async def test_old_counters_are_purged(serve: Any, database: Database) -> None:
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        await log_in(client)
        await pass_time(database, 2 * 86_400)
        await server.runtime.lockout.purge(database)
        async with database.unit_of_work(read_only=True) as session:
            assert len((await session.scalars(select(LoginCounter))).all()) == 1

        await pass_time(database, 29 * 86_400)
        await fail(client, 5, ip=AFAR)
        assert (await log_in(client, ip=HOME)).status == 401


async def test_the_table_tells_neither_names_nor_addresses(
    serve: Any, database: Database
) -> None:
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        await log_in(client)
        await fail(client, 1, name="a password typed as a name")

    async with database.unit_of_work(read_only=True) as session:
        rows = (await session.execute(select(LoginCounter.__table__))).all()
    stored = "".join(map(str, rows))
    assert len(rows) == 4
    assert not [text for text in ("ada", HOME, "typed") if text in stored]


async def mails(database: Database, template: str) -> list[dict[str, Any]]:
    """What was asked to be mailed, in the order of asking."""
    async with database.unit_of_work(read_only=True) as session:
        jobs = await session.scalars(
            select(Job).where(Job.name == "mail.send").order_by(Job.id)
        )
        return [job.args for job in jobs if job.args["template"] == template]


async def test_the_owner_hears_of_a_lock_once(serve: Any, database: Database) -> None:
    """TRUST P4: and the audit tells of it."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        user_id = await register(client)
        await fail(client, 4, ip=AFAR)
        assert await mails(database, "locked_out") == []
        await fail(client, 3, ip=AFAR)
        await pass_time(database, 301)
        await fail(client, 1, ip=AFAR)
        await fail(client, 10, name="nobody", ip=AFAR)

    (told,) = await mails(database, "locked_out")
    assert (told["to"], told["user_id"]) == ("ada@example.com", str(user_id))
    assert told["values"]["minutes"] == 5
    assert AFAR in told["values"]["whence"]
    async with database.unit_of_work(read_only=True) as session:
        events = await session.scalars(
            select(AuditEvent).where(AuditEvent.action == "user.lock")
        )
        assert [event.target_id for event in events] == [user_id]


async def test_a_password_reset_lets_the_owner_in_at_a_new_place(
    serve: Any, database: Database
) -> None:
    """TRUST P4: with a stranger who never stops."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        await fail(client, 10, ip=AFAR)
        token = await mailed_link(server, "reset", "ada@example.com")
        renewed = "another pass phrase"

        reset = await client.post(
            "/auth/reset-password",
            json={"token": token, "password": renewed},
            headers={"X-Forwarded-For": OFFICE},
        )
        await fail(client, 10, ip=AFAR)

        assert reset.status == 204
        assert (await log_in(client, renewed, ip=AFAR)).status == 401
        assert (await log_in(client, renewed, ip=OFFICE)).status == 200


async def test_a_login_under_way_does_not_outlive_the_password_it_proved(
    serve: Any, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRUST T4: the password changes while it is being hashed."""
    async with serve(**PROXIED) as server:
        client = server.anonymous()
        await register(client)
        verify = Passwords.verify

        async def change_meanwhile(
            self: Passwords, password: str, stored: str | None
        ) -> bool:
            right = await verify(self, password, stored)
            async with database.unit_of_work() as session:
                await session.execute(update(User).values(password_hash="changed"))
            return right

        monkeypatch.setattr(Passwords, "verify", change_meanwhile)
        assert (await log_in(client)).status == 401


@pytest.mark.parametrize("desk", ["admin", "staff"])
async def test_the_desk_unlocks_an_account(
    server: Server, database: Database, desk: str
) -> None:
    """TRUST P4."""
    client = server.anonymous()
    user_id = await register(client)
    await fail(client)
    assert (await log_in(client)).status == 401

    helper = await (server.admin("users") if desk == "admin" else server.staff(2))
    unlocked = await helper.post(f"/{desk}/users/{user_id}/unlock")

    assert unlocked.status == 200
    assert (await log_in(client)).status == 200
    async with database.unit_of_work(read_only=True) as session:
        actions = set(await session.scalars(select(AuditEvent.action)))
    assert {"user.lock", "user.unlock"} <= actions


WRONG: dict[str, tuple[str, str, dict[str, str]]] = {
    "change": (
        "POST",
        "/auth/change-password",
        {"current_password": "wrong", "new_password": "another pass phrase"},
    ),
    "delete": ("DELETE", "/users/me", {"password": "wrong"}),
}
"""Where who is logged in is asked for the password again."""


@pytest.mark.parametrize("what", WRONG)
async def test_a_stolen_session_is_no_way_to_guess_the_password(
    server: Server, database: Database, what: str
) -> None:
    """TRUST P4, P7: what is asked for again is counted as a login is."""
    client = await server.client()
    method, path, form = WRONG[what]
    right = {
        key: PASSWORD if value == "wrong" else value for key, value in form.items()
    }
    wrong = [(await client.request(method, path, json=form)).status for _ in range(5)]

    locked = await client.request(method, path, json=right)
    told = await mails(database, "locked_out")
    await pass_time(database, 301)
    let_in = await client.request(method, path, json=right)

    assert wrong == [422] * 5
    assert (locked.status, len(told)) == (422, 1)
    assert let_in.status == 204


@pytest.mark.parametrize("desk", ["admin", "staff"])
async def test_a_stolen_session_at_the_desk_is_none_either(
    server: Server, desk: str
) -> None:
    """TRUST P4, P7."""
    client = await (server.admin("users") if desk == "admin" else server.staff(1))
    path = f"/{desk}/auth/change-password"
    new = "another pass phrase"
    for guess in ("wrong",) * 5 + (PASSWORD,):
        answer = await client.post(
            path, json={"current_password": guess, "new_password": new}
        )
        assert answer.status == 422


async def test_a_password_is_not_changed_by_who_proved_the_one_before(
    server: Server, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TRUST P7: it is reset while the old one is being hashed."""
    client = await server.client()
    verify = Passwords.verify

    async def change_meanwhile(
        self: Passwords, password: str, stored: str | None
    ) -> bool:
        right = await verify(self, password, stored)
        async with database.unit_of_work() as session:
            await session.execute(update(User).values(password_hash="changed"))
        return right

    monkeypatch.setattr(Passwords, "verify", change_meanwhile)
    form = {"current_password": PASSWORD, "new_password": "another pass phrase"}
    refused = await client.post("/auth/change-password", json=form)

    assert refused.status == 422
    async with database.unit_of_work(read_only=True) as session:
        assert await session.scalar(select(User.password_hash)) == "changed"
