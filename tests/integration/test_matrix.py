"""TRUST A1: every route crossed with every kind of principal.

What strangers get, and what users get of each other, tests `test_authorization.py`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from secrets import token_hex
from uuid import UUID

import pytest
from sqlalchemy import update

from app.models import User
from tests.client import Client
from tests.conftest import Server
from tests.integration.operations import GUARDED, PRIVATE, Operation
from tests.integration.test_authorization import (
    all_rows,
    assert_problem,
    assert_tells_nothing,
)
from tests.integration.things import PERMISSIONS, Things, make_things

REFUSALS = {
    401: {"unauthenticated"},
    403: {"permission_required", "level_required"},
}


@dataclass(frozen=True)
class Kind:
    """A kind of principal: who it is, and what it gets where it may not go in."""

    name: str
    client: Callable[[Server, Things], Awaitable[Client]]
    may: Callable[[Operation], bool]
    forbidden: Callable[[Operation], bool]
    """Whether it is told 403; else 401, as it is nobody there."""


def admin(*permissions: str) -> Kind:
    async def client(server: Server, _things: Things) -> Client:
        return await server.admin(*permissions, name=f"admin-{token_hex(4)}")

    def may(operation: Operation) -> bool:
        return operation.admin is not None and operation.admin in {*permissions, ""}

    name = f"admin with {' and '.join(permissions) or 'nothing'}"
    return Kind(name, client, may, lambda operation: operation.admin is not None)


def staff(level: int) -> Kind:
    async def client(server: Server, _things: Things) -> Client:
        return await server.staff(level, name=f"staff-{token_hex(4)}")

    def may(operation: Operation) -> bool:
        return operation.staff is not None and operation.staff <= level

    return Kind(
        f"staff of level {level}",
        client,
        may,
        lambda operation: operation.staff is not None,
    )


async def _user(_server: Server, things: Things) -> Client:
    return things.client


async def _suspended_user(server: Server, things: Things) -> Client:
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(
            update(User).where(User.email == things.email).values(status="suspended")
        )
    server.runtime.principals.forget(UUID(things.session))
    return things.client


async def _service(_server: Server, things: Things) -> Client:
    return things.service


def _nowhere(_operation: Operation) -> bool:
    return False


def _as_user(operation: Operation) -> bool:
    return operation in PRIVATE


AT_THE_DESK = [
    *(staff(level) for level in (1, 2, 3)),
    admin(),
    *(admin(permission) for permission in PERMISSIONS),
    admin(*PERMISSIONS),
]
KINDS = [
    Kind("user", _user, _as_user, _nowhere),
    *AT_THE_DESK,
    Kind("service key", _service, lambda o: o.service, _nowhere),
    Kind("suspended user", _suspended_user, _nowhere, _nowhere),
]


async def test_who_may_not_is_refused_and_changes_nothing(server: Server) -> None:
    """TRUST A1, T1: tokens of users, staff and admins are nothing to each other."""
    things = await make_things(server, "ada")
    for kind in KINDS:
        client = await kind.client(server, things)
        before = await all_rows(server)
        closed = [o for o in GUARDED if not kind.may(o)]

        answers = {o.name: await o.send(client, things) for o in closed}

        assert {name: a.status for name, a in answers.items()} == {
            o.name: 403 if kind.forbidden(o) else 401 for o in closed
        }, kind.name
        for answer in answers.values():
            assert_problem(answer, REFUSALS[answer.status])
            assert_tells_nothing(answer, things)
        assert await all_rows(server) == before, kind.name


@pytest.mark.parametrize("kind", AT_THE_DESK, ids=lambda kind: kind.name)
async def test_who_may_is_let_in(server: Server, kind: Kind) -> None:
    """TRUST A1: else a refusal would prove nothing about who is refused."""
    opened = [o for o in GUARDED if kind.may(o)]
    statuses = {}
    things = await make_things(server, "ada")
    client = await kind.client(server, things)
    for number, operation in enumerate(opened):
        if operation.method != "GET":  # what one call changed is not there for another
            things = await make_things(server, f"ada{number}")
            client = await kind.client(server, things)
        statuses[operation.name] = (await operation.send(client, things)).status

    assert statuses == {operation.name: operation.status for operation in opened}
