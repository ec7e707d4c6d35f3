"""Mailed links: sign-ups, verified addresses, new passwords (TRUST L1, L2, P3, P5, T5).

Where a test does not say otherwise, an account works at once, as in development.
"""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update

from app.core.database import Database
from app.core.tokens import fingerprint
from app.models import AuditEvent, Job, MailLink, User
from app.services import job as jobs
from app.services.link import links
from tests import mailbox
from tests.client import Answer, Client
from tests.conftest import Server
from tests.integration.linking import (
    ADA,
    ANOTHER,
    PASSWORD,
    age_links,
    forgot,
    hashes,
    login,
    mailed_token,
    resend,
    reset,
    sign_up,
    user_of,
    verify,
)

required = pytest.mark.parametrize(
    "variables", [{"EMAIL_VERIFICATION": "required"}], ids=["required"]
)


@pytest.fixture
def variables() -> dict[str, str]:
    return {}


@pytest.fixture
async def server(serve: Any, variables: dict[str, str]) -> Any:
    async with serve(**variables) as server:
        yield server


# Sign-ups and verified addresses


async def test_an_address_is_verified_by_its_link(
    server: Server, database: Database
) -> None:
    client = server.anonymous()
    created = await sign_up(client)
    assert created.status == 201
    assert created.json["email_verified_at"] is None
    assert await login(client, PASSWORD) == 200

    (message,) = await mailbox.mails(server, ADA)
    verified = await verify(client, mailbox.token_of(message))

    assert verified.status == 200
    assert verified.json["id"] == created.json["id"]
    assert verified.json["email_verified_at"] is not None
    assert await mailbox.subjects(server) == ["Confirm your address for Workroom"]


@required
async def test_where_it_is_required_an_account_begins_with_its_link(
    server: Server, database: Database
) -> None:
    client = server.anonymous()
    answer = await sign_up(client, username="ada", full_name="Ada L.")
    assert (answer.status, answer.json) == (202, {"status": "accepted"})
    assert await login(client, PASSWORD) == 401
    assert await user_of(database) is None

    verified = await verify(client, await mailbox.token(server))

    assert verified.status == 200
    assert verified.json["username"] == "ada"
    assert verified.json["full_name"] == "Ada L."
    assert verified.json["email_verified_at"] is not None
    assert await login(client, PASSWORD, "ada") == 200
    async with database.unit_of_work(read_only=True) as session:
        actions = await session.scalars(select(AuditEvent.action))
        left = await session.scalars(select(MailLink.password_hash))
        assert "user.register" in set(actions)
        assert set(left) == {None}


@required
async def test_a_sign_up_answers_the_same_for_every_address(
    server: Server, monkeypatch: pytest.MonkeyPatch, database: Database
) -> None:
    """TRUST P3: and one hash is made on every path."""
    client = server.anonymous()
    await sign_up(client)
    await verify(client, await mailbox.token(server))
    before = await user_of(database)

    with hashes(monkeypatch) as of_known:
        known = await sign_up(client, password="the pass phrase of eve")
    with hashes(monkeypatch) as of_unknown:
        unknown = await sign_up(client, email="nobody@example.com")

    assert (known.status, known.body) == (unknown.status, unknown.body)
    assert _names(known) == _names(unknown)
    assert of_known == of_unknown == ["hash"]
    # The owner hears of it, and nothing has changed.
    assert (await mailbox.subjects(server, ADA))[1:] == [
        "You already have an account at Workroom"
    ]
    after = await user_of(database)
    assert before is not None
    assert after is not None
    assert after.password_hash == before.password_hash


def _names(answer: Answer) -> set[str]:
    return {name.lower() for name in answer.headers}


@required
async def test_a_sign_up_with_a_taken_name_answers_the_same_for_every_address(
    server: Server,
) -> None:
    """TRUST P3."""
    client = server.anonymous()
    await sign_up(client, username="ada")
    await verify(client, await mailbox.token(server))

    answers = [
        await sign_up(client, email=email, username="Ada")
        for email in (ADA, "nobody@example.com")
    ]

    assert [a.status for a in answers] == [409, 409]
    assert [a.json["code"] for a in answers] == ["username_taken"] * 2


@required
async def test_a_name_that_is_taken_meanwhile_is_left_out(server: Server) -> None:
    client = server.anonymous()
    await sign_up(client, username="ada")
    await sign_up(client, email="eve@example.com", username="ada")
    first = await verify(client, await mailbox.token(server, "eve@example.com"))

    second = await verify(client, await mailbox.token(server))

    assert first.json["username"] == "ada"
    assert (second.status, second.json["username"]) == (200, None)


@required
@pytest.mark.parametrize("owner", [0, 1], ids=["owner first", "owner last"])
async def test_a_link_activates_the_password_of_its_own_sign_up_alone(
    server: Server, owner: int
) -> None:
    """TRUST L2: somebody else signed up with the address, before or after."""
    client = server.anonymous()
    passwords = [PASSWORD, ANOTHER]
    tokens = []
    for password in passwords:
        await sign_up(client, password=password)
        tokens.append(mailbox.token_of((await mailbox.mails(server, ADA))[-1]))

    assert (await verify(client, tokens[owner], passwords[owner])).status == 200

    assert await login(client, passwords[owner]) == 200
    assert await login(client, passwords[1 - owner]) == 401
    # The other sign-up is over, not merely waiting.
    assert (await verify(client, tokens[1 - owner])).status == 422
    assert await login(client, passwords[1 - owner]) == 401


BEHIND_A_PROXY = {"TRUSTED_PROXIES": "127.0.0.1"}
either = pytest.mark.parametrize(
    "variables",
    [BEHIND_A_PROXY, {**BEHIND_A_PROXY, "EMAIL_VERIFICATION": "required"}],
    ids=["optional", "required"],
)


def from_afar(client: Client) -> Client:
    """The same client, in a network of its own."""
    client.headers["X-Forwarded-For"] = "203.0.113.9"
    return client


@either
async def test_from_where_one_signed_up_the_link_is_enough(server: Server) -> None:
    client = from_afar(server.anonymous())
    await sign_up(client)
    token = {"token": await mailbox.token(server)}

    confirmed = await client.post("/auth/verify-email", json=token)

    assert confirmed.status == 200
    assert confirmed.json["email_verified_at"] is not None
    assert await login(client, PASSWORD) == 200


@either
async def test_who_confirms_by_mistake_activates_no_stranger_s_password(
    server: Server, database: Database
) -> None:
    """TRUST L2: the stranger signed up with the victim's address."""
    await sign_up(from_afar(server.anonymous()), password="the pass phrase of eve")
    (message,) = await mailbox.mails(server, ADA)
    token, victim = mailbox.token_of(message), server.anonymous()

    for form in ({}, {"password": ""}, {"password": PASSWORD}):
        answer = await victim.post("/auth/verify-email", json={"token": token, **form})
        assert (answer.status, answer.json["code"]) == (422, "password_needed")
        assert [e["path"] for e in answer.json["errors"]] == ["password"]

    user = await user_of(database)
    assert user is None or user.email_verified_at is None
    # Nor is the link used up: for whoever signed up it works.
    assert (await verify(victim, token, "the pass phrase of eve")).status == 200


@pytest.mark.parametrize("variables", [BEHIND_A_PROXY], ids=["proxied"])
async def test_who_is_logged_in_confirms_their_own_address_without_the_password(
    server: Server,
) -> None:
    client, stranger = server.anonymous(), await server.client("eve")
    await sign_up(from_afar(server.anonymous()))
    token = {"token": await mailbox.token(server)}
    await client.login(ADA, PASSWORD)

    refused = await stranger.post("/auth/verify-email", json=token)
    confirmed = await client.post("/auth/verify-email", json=token)

    assert refused.json["code"] == "password_needed"
    assert confirmed.status == 200


async def test_a_reset_ends_what_somebody_else_began_with_the_address(
    server: Server, database: Database
) -> None:
    """TRUST L2: a stranger has registered an address that is not theirs."""
    stranger = server.anonymous()
    await sign_up(stranger)
    await stranger.login(ADA, PASSWORD)
    await stranger.post("/auth/change-email", json={"email": "eve@example.com"})
    smuggled = await mailbox.token(server, "eve@example.com")

    await forgot(server.anonymous())
    token = await mailed_token(server, "reset")
    assert (await reset(server.anonymous(), token)).status == 204

    assert (await stranger.get("/auth/me")).status == 401
    assert await login(stranger, PASSWORD) == 401
    assert (await verify(stranger, smuggled)).status == 422
    assert await login(server.anonymous(), ANOTHER) == 200
    user = await user_of(database)
    assert user is not None
    assert user.email_verified_at is not None


@required
async def test_a_sign_up_can_be_mailed_again(server: Server) -> None:
    client = server.anonymous()
    await sign_up(client, username="ada")
    first = await mailbox.token(server)

    again = await resend(client)

    assert again.status == 202
    second = await mailbox.token(server)
    assert second != first
    assert (await verify(client, second)).json["username"] == "ada"
    assert await login(client, PASSWORD) == 200


async def test_asking_again_answers_the_same_for_every_address(server: Server) -> None:
    """TRUST P3: no password is hashed, for nobody."""
    client = server.anonymous()
    await sign_up(client)

    for ask in (resend, forgot):
        known, unknown = await ask(client), await ask(client, "nobody@example.com")
        assert (known.status, known.body) == (unknown.status, unknown.body)
        assert known.status == 202
    assert await mailbox.subjects(server, "nobody@example.com") == []
    assert len(await mailbox.subjects(server, ADA)) == 3


async def test_who_asks_leaves_the_same_traces_for_every_address(
    server: Server, database: Database
) -> None:
    """TRUST P3: one link and one job in the request itself, whoever has the address."""
    client = server.anonymous()
    await sign_up(client)
    await mailbox.settled(server)

    async def rows() -> int:
        asked = select(func.count(Job.id)).where(Job.name == "link.mail")
        async with database.unit_of_work(read_only=True) as session:
            return int(await session.scalar(asked) or 0)

    before = await rows()
    await forgot(client)
    known = await rows() - before
    await forgot(client, "nobody@example.com")
    unknown = await rows() - before - known

    assert known == unknown == 1


# Links


async def test_a_link_is_random_stored_hashed_and_bound(
    server: Server, database: Database
) -> None:
    """TRUST L1."""
    await sign_up(server.anonymous())
    token = await mailbox.token(server)

    async with database.unit_of_work(read_only=True) as session:
        link = (await session.scalars(select(MailLink))).one()
        stored = (await session.execute(select(Job.args, Job.error))).all()
    user = await user_of(database)

    assert user is not None
    assert len(token) * 6 >= 128
    assert link.token_hash == fingerprint(token)
    assert (link.purpose, link.email, link.user_id) == ("verify", ADA, user.id)
    assert not [job for job in stored if token in str(job)]


async def test_links_begin_with_the_configured_address(serve: Any) -> None:
    """TRUST L1: never with what a request calls us."""
    async with serve(PUBLIC_URL="https://room.example.com/") as server:
        client = server.anonymous()
        client.headers |= {"Host": "evil.example.com", "X-Forwarded-Host": "evil"}
        await sign_up(client)
        (message,) = await mailbox.mails(server, ADA)

    for kind in ("plain", "html"):
        text = mailbox.text_of(message, kind)
        assert "https://room.example.com/verify-email#token=" in text
        assert "evil" not in text


async def test_a_link_works_once(server: Server) -> None:
    """TRUST L1: also for many at one moment."""
    client = server.anonymous()
    await sign_up(client)
    token = await mailbox.token(server)

    answers = await asyncio.gather(*(verify(client, token) for _ in range(5)))

    assert sorted(a.status for a in answers) == [200, 422, 422, 422, 422]
    refused = max(answers, key=lambda a: a.status)
    assert refused.json["code"] == "invalid_link"
    assert [e["path"] for e in refused.json["errors"]] == ["token"]


@pytest.mark.parametrize(
    ("purpose", "hours"), [("verify", 24), ("reset", 2)], ids=["verify", "reset"]
)
async def test_a_link_expires(
    server: Server, database: Database, purpose: str, hours: int
) -> None:
    """TRUST L1."""
    client = server.anonymous()
    await sign_up(client)
    await forgot(client)
    token = await mailed_token(server, purpose)
    await age_links(database, timedelta(hours=hours, seconds=1))

    used = await (verify if purpose == "verify" else reset)(client, token)

    assert used.status == 422
    assert used.json["code"] == "invalid_link"


async def test_a_link_serves_no_other_purpose(server: Server) -> None:
    """TRUST L1."""
    client = server.anonymous()
    await sign_up(client)
    await forgot(client)

    swapped = [
        await reset(client, await mailed_token(server, "verify")),
        await verify(client, await mailed_token(server, "reset")),
    ]

    assert [a.status for a in swapped] == [422, 422]
    assert await login(client, PASSWORD) == 200


async def test_a_link_is_void_once_the_account_has_another_address(
    server: Server, database: Database
) -> None:
    """TRUST L1."""
    client = server.anonymous()
    await sign_up(client)
    await forgot(client)
    tokens = [await mailed_token(server, p) for p in ("verify", "reset")]
    async with database.unit_of_work() as session:
        await session.execute(update(User).values(email="new@example.com"))

    answers = [await verify(client, tokens[0]), await reset(client, tokens[1])]

    assert [a.status for a in answers] == [422, 422]


async def test_links_of_a_suspended_account_are_void_and_no_more_are_mailed(
    server: Server, database: Database
) -> None:
    client = server.anonymous()
    await sign_up(client)
    await forgot(client)
    token = await mailed_token(server, "reset")
    mailed = len(await mailbox.mails(server))
    async with database.unit_of_work() as session:
        await session.execute(update(User).values(status="suspended"))

    assert (await reset(client, token)).status == 422
    assert (await forgot(client)).status == 202
    assert (await resend(client)).status == 202
    assert len(await mailbox.mails(server)) == mailed


@pytest.mark.parametrize("token", ["", "x", "x" * 256, "'; DROP TABLE users; --"])
async def test_an_unknown_token_is_refused(server: Server, token: str) -> None:
    client = server.anonymous()

    assert (await verify(client, token)).json["code"] == "invalid_link"
    assert (await reset(client, token)).json["code"] == "invalid_link"


async def test_old_links_are_purged(server: Server, database: Database) -> None:
    await sign_up(server.anonymous())
    await mailbox.settled(server)
    await age_links(database, timedelta(days=2))
    await forgot(server.anonymous())
    await mailbox.settled(server)

    await links.purge(database)

    async with database.unit_of_work(read_only=True) as session:
        assert set(await session.scalars(select(MailLink.purpose))) == {"reset"}


async def test_a_job_that_runs_twice_leaves_one_mail_whose_link_works(
    server: Server, database: Database
) -> None:
    """TRUST F4: its process died after the mail went out."""
    await sign_up(server.anonymous())
    await mailbox.settled(server)
    await run_again(database)

    (message,) = await mailbox.mails(server, ADA)
    assert (await verify(server.anonymous(), mailbox.token_of(message))).status == 200

    # Used up, it is not mailed anew.
    await run_again(database)
    (after,) = await mailbox.mails(server, ADA)
    assert after.as_bytes() == message.as_bytes()


async def run_again(database: Database) -> None:
    async with database.unit_of_work() as session:
        await session.execute(
            update(Job).where(Job.name == "link.mail").values(state="queued")
        )
    jobs.wake_workers()


# How much is mailed


async def test_reset_mails_are_five_a_day(server: Server, database: Database) -> None:
    """TRUST P5: for each account, however many are asked for at one moment."""
    client = server.anonymous()
    await sign_up(client)

    answers = await asyncio.gather(*(forgot(client) for _ in range(8)))
    assert {a.status for a in answers} == {202}
    wanted = "A new password for Workroom"
    assert (await mailbox.subjects(server, ADA)).count(wanted) == 5

    await age_links(database, timedelta(hours=24, seconds=1))
    await forgot(client)
    assert (await mailbox.subjects(server, ADA)).count(wanted) == 6


async def test_verification_mails_are_three_in_six_hours(
    server: Server, database: Database
) -> None:
    """TRUST P5."""
    client = server.anonymous()
    await sign_up(client)
    for _ in range(4):
        assert (await resend(client)).status == 202
    assert len(await mailbox.mails(server, ADA)) == 3
    assert (await verify(client, await mailbox.token(server))).status == 200

    await age_links(database, timedelta(hours=6, seconds=1))
    await resend(client)
    # It is verified: there is nothing left to mail.
    assert len(await mailbox.mails(server, ADA)) == 3


@required
async def test_sign_ups_mail_an_address_three_times_in_six_hours(
    server: Server, database: Database
) -> None:
    """TRUST P5."""
    client = server.anonymous()
    for _ in range(5):
        assert (await sign_up(client)).status == 202
    assert len(await mailbox.mails(server, ADA)) == 3

    await age_links(database, timedelta(hours=6, seconds=1))
    await sign_up(client)
    assert len(await mailbox.mails(server, ADA)) == 4
