"""The audit: with the transaction that it tells of, and in a chain."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import delete, select, text, update

from app.core.anchor import LINES, Anchor
from app.core.crypto import Crypto
from app.core.database import Database
from app.models import AuditChain, AuditEvent
from app.services import audit
from app.services.audit import Actor
from app.services.audit.checking import Findings, check
from tests.conftest import SettingsFactory, on_postgresql

ADMIN = Actor("admin", UUID(int=1), "192.0.2.1")
SOMEBODY = UUID(int=2)


async def events(database: Database) -> list[AuditEvent]:
    async with database.unit_of_work(read_only=True) as session:
        found = await session.scalars(select(AuditEvent).order_by(AuditEvent.seq))
        return list(found)


async def act(database: Database, action: str = "thing.do", **facts: Any) -> None:
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


class TestChain:
    """TRUST D2: what can be told of a chain that somebody has been at."""

    @pytest.fixture(autouse=True)
    def _prepare(self, database: Database, settings_with: SettingsFactory) -> None:
        settings = settings_with()
        self.database = database
        self.crypto = Crypto(settings.security)
        self.anchor = Anchor(settings.server.data_dir)

    async def check(self) -> Findings:
        return await check(self.database, self.crypto, self.anchor)

    async def faults(self) -> str:
        return "\n".join((await self.check()).faults)

    async def tamper(self, statement: Any) -> None:
        async with self.database.unit_of_work() as session:
            await session.execute(statement)

    async def fill(self, count: int = 5) -> None:
        for n in range(count):
            target = ("user", SOMEBODY if n % 2 else uuid4())
            await act(self.database, target=target, after={"n": n, "share": 0.1})

    async def test_an_untouched_one_is_whole(self) -> None:
        assert await self.check() == Findings()
        await self.fill()

        assert await self.check() == Findings(events=5, anchored=True)

    async def test_events_at_the_same_moment_follow_each_other(self) -> None:
        """Also the very first ones, which begin the chain."""
        await asyncio.gather(*(act(self.database, f"thing.do{n}") for n in range(20)))

        found = await events(self.database)
        assert [event.seq for event in found] == list(range(1, 21))
        assert len({event.action for event in found}) == 20
        assert await self.check() == Findings(events=20, anchored=True)

    async def test_several_events_of_one_transaction_follow_each_other(self) -> None:
        async with self.database.unit_of_work() as session:
            for n in range(3):
                await audit.record(session, ADMIN, f"thing.do{n}")

        assert await self.check() == Findings(events=3, anchored=True)

    @on_postgresql
    async def test_a_transaction_that_never_ends_holds_nobody_up(self) -> None:
        """The chain is locked for the commit alone, whenever the event was told."""
        async with self.database.unit_of_work() as slow:
            await audit.record(slow, ADMIN, "thing.slow")
            await slow.flush()
            async with asyncio.timeout(10):
                await act(self.database, "thing.quick")

        assert [e.action for e in await events(self.database)] == [
            "thing.quick",
            "thing.slow",
        ]

    @pytest.mark.parametrize(
        ("change", "fault"),
        [
            ({"action": "thing.undo"}, "event 3 was changed"),
            ({"actor_id": SOMEBODY}, "event 3 was changed"),
            ({"target_kind": "admin"}, "event 3 was changed"),
            ({"hash": b"\1" * 32}, "event 3 was changed"),
            ({"details_hash": b"\1" * 32}, "event 3 was changed"),
            ({"details": {"after": 1}}, "the details of event 3 were changed"),
            ({"details": None}, "the details of event 3 were taken out"),
        ],
    )
    async def test_a_changed_event_is_found(
        self, change: dict[str, Any], fault: str
    ) -> None:
        await self.fill()
        await self.tamper(
            update(AuditEvent).where(AuditEvent.seq == 3).values(**change)
        )

        assert fault in await self.faults()

    async def test_a_missing_event_is_found(self) -> None:
        await self.fill()
        await self.tamper(delete(AuditEvent).where(AuditEvent.seq.in_([2, 3])))

        assert await self.faults() == "events 2 to 3 are missing"

    async def test_a_missing_end_is_found(self) -> None:
        await self.fill()
        await self.tamper(delete(AuditEvent).where(AuditEvent.seq > 3))

        assert await self.faults() == "events 4 to 5 are missing"

    async def test_an_end_cut_off_with_care_is_found_by_the_anchor(self) -> None:
        await self.fill()
        third = (await events(self.database))[2]
        await self.tamper(delete(AuditEvent).where(AuditEvent.seq > 3))
        await self.tamper(update(AuditChain).values(seq=3, hash=third.hash))

        assert "the end is cut off" in await self.faults()
        assert "tells of event 5" in await self.faults()

    async def test_an_end_cut_off_and_grown_again_is_found_by_the_anchor(self) -> None:
        await self.fill()
        third = (await events(self.database))[2]
        await self.tamper(delete(AuditEvent).where(AuditEvent.seq > 3))
        await self.tamper(update(AuditChain).values(seq=3, hash=third.hash))
        lines = self.anchor.path.read_bytes()
        await self.fill(3)
        self.anchor.path.write_bytes(lines)

        assert "event 5 is not the one that was anchored" in await self.faults()

    async def test_everything_deleted_is_found_by_the_anchor(self) -> None:
        await self.fill()
        await self.tamper(delete(AuditEvent))
        await self.tamper(delete(AuditChain))

        assert "the end is cut off" in await self.faults()

    async def test_the_chains_row_deleted_is_found(self) -> None:
        await self.fill()
        await self.tamper(delete(AuditChain))

        assert "the chain's own row is gone" in await self.faults()

    async def test_the_chains_row_changed_is_found(self) -> None:
        await self.fill()
        await self.tamper(update(AuditChain).values(hash=b"\1" * 32))

        assert await self.faults() == "the chain's own row was changed"

    async def test_an_event_from_elsewhere_is_found(self) -> None:
        await self.fill()
        values = (
            "SELECT seq + 1, created_at, actor_kind, action, details, details_hash, "
            "hash FROM audit_events WHERE seq = 5"
        )
        columns = "seq, created_at, actor_kind, action, details, details_hash, hash"
        await self.tamper(text(f"INSERT INTO audit_events ({columns}) {values}"))

        assert await self.faults() == "event 6 was added behind the end, 5"

    async def test_another_key_does_not_pass(self, settings_with: Any) -> None:
        """Who brings a key of their own cannot seal it for us."""
        await self.fill()
        theirs = Crypto(settings_with(SECRET_KEY="another secret key").security)
        key = theirs.seal("ab" * 32, place="audit_chain.key:1")
        await self.tamper(update(AuditChain).values(key=key))

        assert "does not open" in await self.faults()

    async def test_a_changed_anchor_is_found(self) -> None:
        await self.fill()
        self.anchor.path.write_bytes(b"something else")

        assert "a line is not one of ours" in await self.faults()

    async def test_an_erasure_empties_details_and_breaks_nothing(self) -> None:
        """TRUST D3."""
        await self.fill()
        async with self.database.unit_of_work() as session:
            await audit.forget(session, SOMEBODY)
            await audit.record(session, ADMIN, "user.erase", target=("user", SOMEBODY))

        assert await self.check() == Findings(events=6, anchored=True)
        details = [event.details for event in await events(self.database)]
        assert [d is None for d in details] == [False, True, False, True, False, False]

    async def test_a_folder_that_takes_no_anchor_stops_nobody(self) -> None:
        self.anchor.path.mkdir()

        await self.fill()

        assert len(await events(self.database)) == 5


def test_an_anchor_never_grows(tmp_path: Any) -> None:
    anchor = Anchor(tmp_path)
    for seq in range(1, LINES + 100):
        anchor.write(seq, seq.to_bytes(32, "big"))

    heads = anchor.read()
    assert len(heads) == LINES
    assert (min(heads), max(heads)) == (100, LINES + 99)
    assert heads[200] == (200).to_bytes(32, "big")
    assert anchor.path.stat().st_mode & 0o777 == 0o600
