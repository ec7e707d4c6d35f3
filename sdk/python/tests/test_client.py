"""Caching, single flight, outages: what an application may rely on."""

import asyncio
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import INACTIVE, SERVICE_KEY, SID, SUB, Connect, FakeWorkroom, active
from workroom_auth import (
    UnauthenticatedError,
    UnavailableError,
    WorkroomAuth,
)

KEY = "wr_000000000000_000000000000000000000000000000004M0v2D"
TOKEN = "eyJ.a-token.x"


def test_an_answer_is_asked_for_once(workroom: FakeWorkroom, connect: Connect) -> None:
    workroom.answers[TOKEN] = active()
    auth = connect()

    found = [auth.check(TOKEN) for _ in range(3)]

    assert {identity.username for identity in found} == {"ada"}
    assert workroom.asked == [{"token": TOKEN}]


async def test_coroutines_and_threads_share_the_cache(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.answers[TOKEN] = active()
    auth = connect()

    first = await auth.acheck(TOKEN)
    second = await asyncio.to_thread(auth.check, TOKEN)

    assert first == second
    assert len(workroom.asked) == 1


def test_refusals_are_remembered_too(workroom: FakeWorkroom, connect: Connect) -> None:
    auth = connect()
    for _ in range(3):
        with pytest.raises(UnauthenticatedError):
            auth.check(TOKEN)

    assert len(workroom.asked) == 1


def test_an_old_answer_is_asked_for_anew(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    """A revoked credential works for at most the cache time."""
    workroom.answers[TOKEN] = active()
    auth = connect(cache_seconds=0, negative_seconds=0)
    auth.check(TOKEN)

    workroom.answers[TOKEN] = INACTIVE
    with pytest.raises(UnauthenticatedError):
        auth.check(TOKEN)
    workroom.answers[TOKEN] = active()

    assert auth.check(TOKEN).sub == SUB


def test_a_token_that_expires_in_the_cache_is_refused(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.answers[TOKEN] = active(exp=int(time.time()) + 1)
    auth = connect()
    auth.check(TOKEN)
    time.sleep(1)

    with pytest.raises(UnauthenticatedError):
        auth.check(TOKEN)


@pytest.mark.parametrize(
    "token",
    [None, "", "wr_wrong", KEY[:-1] + "0", f"{KEY} ", SERVICE_KEY, "x" * 5000, "é"],
)
def test_what_cannot_be_a_token_is_not_asked_about(
    workroom: FakeWorkroom, connect: Connect, token: str | None
) -> None:
    with pytest.raises(UnauthenticatedError):
        connect().check(token)

    assert workroom.asked == []


def test_a_key_is_another_one_from_each_address(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.answers = {KEY: active(scope="ext:a"), TOKEN: active()}
    auth = connect()

    for client_ip in ("203.0.113.1", "203.0.113.1", "203.0.113.2"):
        auth.check(KEY, client_ip=client_ip)
        auth.check(TOKEN, client_ip=client_ip)

    assert workroom.asked == [
        {"token": KEY, "client_ip": "203.0.113.1"},
        {"token": TOKEN},
        {"token": KEY, "client_ip": "203.0.113.2"},
    ]


def test_many_who_ask_at_once_are_one_question(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.answers[TOKEN] = active()
    workroom.gate.clear()
    auth = connect(timeout=30)
    begun = threading.Barrier(9)

    def ask() -> str:
        begun.wait()
        return auth.check(TOKEN).sub

    with ThreadPoolExecutor(8) as pool:
        waiting = [pool.submit(ask) for _ in range(8)]
        begun.wait()
        workroom.gate.set()
        found = [future.result() for future in waiting]

    assert found == [SUB] * 8
    assert len(workroom.asked) == 1


async def test_who_leaves_does_not_cancel_the_others_question(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.answers[TOKEN] = active()
    workroom.gate.clear()
    auth = connect(timeout=30, concurrency=1)
    blocker = asyncio.create_task(auth.acheck("another"))
    await asyncio.sleep(0)
    leaving, staying = (asyncio.create_task(auth.acheck(TOKEN)) for _ in range(2))
    await asyncio.sleep(0)

    leaving.cancel()
    await asyncio.sleep(0)
    workroom.gate.set()

    assert (await staying).sub == SUB
    with pytest.raises(UnauthenticatedError):
        await blocker


def test_the_cache_is_bounded(workroom: FakeWorkroom, connect: Connect) -> None:
    auth = connect(cache_size=10)
    tokens = [f"token-{number}" for number in range(30)]
    workroom.answers = {token: active() for token in tokens}
    for token in tokens:
        auth.check(token)

    assert len(auth._cache) == 10
    auth.check(tokens[-1])
    assert len(workroom.asked) == 30


def test_connections_are_kept_and_made_anew(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    auth = connect(cache_seconds=0)
    workroom.answers[TOKEN] = active()
    for _ in range(5):
        auth.check(TOKEN)
    assert workroom.connections == 1

    workroom.stop()
    workroom.start()

    assert auth.check(TOKEN).sub == SUB


def test_it_fails_closed(workroom: FakeWorkroom, connect: Connect) -> None:
    workroom.answers[TOKEN] = active()
    auth = connect(cache_seconds=0)
    auth.check(TOKEN)
    workroom.stop()

    with pytest.raises(UnavailableError) as caught:
        auth.check(TOKEN)

    assert caught.value.status == 503
    assert caught.value.headers["Retry-After"]


def test_it_serves_whom_it_knew_where_that_is_chosen(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.answers[TOKEN] = active()
    auth = connect(cache_seconds=0, on_outage="serve_stale")
    assert not auth.check(TOKEN).stale
    workroom.stop()

    assert auth.check(TOKEN).stale
    with pytest.raises(UnavailableError):
        auth.check("never seen")
    workroom.start()
    workroom.answers[TOKEN] = INACTIVE
    auth._breaker.succeeded()
    with pytest.raises(UnauthenticatedError):
        auth.check(TOKEN)


def test_stale_answers_end(workroom: FakeWorkroom, connect: Connect) -> None:
    workroom.answers[TOKEN] = active()
    auth = connect(cache_seconds=0, on_outage="serve_stale", stale_seconds=0)
    auth.check(TOKEN)
    workroom.stop()

    with pytest.raises(UnavailableError):
        auth.check(TOKEN)


def test_a_refused_service_key_is_no_outage(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.answers[TOKEN] = active()
    auth = connect(cache_seconds=0, on_outage="serve_stale")
    auth.check(TOKEN)
    workroom.status = 401

    for _ in range(10):  # also once the breaker is open
        with pytest.raises(UnavailableError):
            auth.check(TOKEN)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_error_is_neither_a_login_nor_a_logout(
    workroom: FakeWorkroom, connect: Connect, status: int
) -> None:
    workroom.answers[TOKEN] = active()
    workroom.status = status

    with pytest.raises(UnavailableError):
        connect().check(TOKEN)


def test_an_answer_of_another_shape_is_an_outage(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.answers[TOKEN] = {"active": True}

    with pytest.raises(UnavailableError):
        connect().check(TOKEN)


def test_who_does_not_answer_is_left_in_peace(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.status = 500
    workroom.answers[TOKEN] = active()
    auth = connect(breaker_failures=3, breaker_seconds=0.3)
    for _ in range(10):
        with pytest.raises(UnavailableError):
            auth.check(TOKEN)
    asked_while_open = len(workroom.asked)

    workroom.status = 200
    time.sleep(0.3)

    assert asked_while_open == 3
    assert auth.check(TOKEN).sub == SUB
    assert auth._breaker.allows()


def test_a_slow_server_is_not_waited_for(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.gate.clear()

    with pytest.raises(UnavailableError):
        connect(timeout=0.05).check(TOKEN)


@pytest.mark.parametrize("forget", ["sid", "sub", "all"])
def test_what_is_forgotten_is_asked_anew(
    workroom: FakeWorkroom, connect: Connect, forget: str
) -> None:
    workroom.answers = {
        TOKEN: active(),
        "other": active(sid="another session", sub="another user"),
    }
    auth = connect()
    auth.check(TOKEN)
    auth.check("other")
    workroom.answers[TOKEN] = INACTIVE

    {
        "sid": lambda: auth.forget(SID),
        "sub": lambda: auth.forget_user(SUB),
        "all": auth.forget_all,
    }[forget]()

    with pytest.raises(UnauthenticatedError):
        auth.check(TOKEN)
    auth.check("other")
    assert len(workroom.asked) == (4 if forget == "all" else 3)


def test_an_answer_that_was_under_way_is_not_kept(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    """What was asked before a revocation may tell of before it."""
    workroom.answers[TOKEN] = active()
    workroom.gate.clear()
    auth = connect(timeout=30)
    with ThreadPoolExecutor(1) as pool:
        under_way = pool.submit(auth.check, TOKEN)
        while not auth._flights:
            time.sleep(0.001)
        auth.forget(SID)
        workroom.gate.set()
        under_way.result()

    workroom.answers[TOKEN] = INACTIVE
    with pytest.raises(UnauthenticatedError):
        auth.check(TOKEN)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_threads_and_connections_of_its_own(
    workroom: FakeWorkroom, connect: Connect
) -> None:
    workroom.answers = {TOKEN: active(), "other": active(username="bob")}
    auth = connect()
    auth.check(TOKEN)

    child = os.fork()
    if child == 0:
        right = auth.check("other").username == "bob"
        os._exit(0 if right else 1)
    _, status = os.waitpid(child, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert workroom.connections == 2


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("workroom.example", {}),
        ("ftp://workroom.example", {}),
        ("https://workroom.example", {"service_key": "wr_a_user_key"}),
        ("https://workroom.example", {"on_outage": "let everybody in"}),
    ],
)
def test_what_cannot_work_is_refused_at_once(url: str, options: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"address|wrs_|on_outage"):
        WorkroomAuth(url, **{"service_key": SERVICE_KEY, **options})  # type: ignore[arg-type]  # wrong on purpose
