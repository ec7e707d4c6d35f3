"""The audit: with the transaction that it tells of, and in a chain."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from app.core.database import Database
from app.models import AuditEvent
from app.services import audit
from app.services.audit import Actor

ADMIN = Actor("admin", UUID(int=1), "192.0.2.1")


async def events(database: Database) -> list[AuditEvent]:
    async with database.unit_of_work(read_only=True) as session:
        found = await session.scalars(select(AuditEvent).order_by(AuditEvent.seq))
        return list(found)


async def act(database: Database, action: str, **facts: Any) -> None:
    async with database.unit_of_work() as session:
        await audit.record(session, ADMIN, action, **facts)


async def test_an_event_tells_who_did_what_to_whom(database: Database) -> None:
    target = uuid4()
    await act(
        database,
        "plan.change",
        target=("user", target),
        before={"plan": "free"},
        after={"plan": "pro", "by": target},
    )

    (event,) = await events(database)
    assert (event.seq, event.actor_kind, event.actor_id) == (1, "admin", ADMIN.id)
    assert (event.action, event.target_kind) == ("plan.change", "user")
    assert event.target_id == target
    assert event.details == {
        "ip": "192.0.2.1",
        "before": {"plan": "free"},
        "after": {"plan": "pro", "by": str(target)},
    }


async def test_what_is_rolled_back_was_not_done(database: Database) -> None:
    async def fail() -> None:
        async with database.unit_of_work() as session:
            await audit.record(session, ADMIN, "user.suspend")
            raise ValueError("not after all")

    with pytest.raises(ValueError, match="not after all"):
        await fail()

    assert await events(database) == []


async def test_events_at_the_same_moment_follow_each_other(database: Database) -> None:
    """TRUST D2: also the very first ones, which begin the chain."""
    await asyncio.gather(*(act(database, f"thing.do{n}") for n in range(20)))

    found = await events(database)
    assert [event.seq for event in found] == list(range(1, 21))
    assert len({event.action for event in found}) == 20
