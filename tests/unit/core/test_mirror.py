import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from app.core.bus import LocalBus
from app.core.exceptions import UnavailableError
from app.core.mirror import Mirror


class LossyBus(LocalBus):
    """One that can lose messages."""

    def __init__(self) -> None:
        super().__init__()
        self.gap: Callable[[], None] = lambda: None

    def on_gap(self, callback: Callable[[], None]) -> None:
        self.gap = callback


class Table:
    """What stands in the database, and what a process knows of it."""

    def __init__(self, bus: LossyBus) -> None:
        self.rows = "first"
        self.known: list[str] = []
        self.away = False
        self.reading = asyncio.Event()
        self.looked = asyncio.Event()
        """Set whenever a read has come to an end, or its rows were taken."""
        self.open = asyncio.Event()
        self.open.set()
        self.mirror = Mirror(bus, "table", read=self.read, take=self.take)

    async def read(self) -> str:
        found = self.rows
        self.reading.set()
        await self.open.wait()
        if self.away:
            self.looked.set()
            raise UnavailableError("It is away.")
        return found

    def take(self, found: str) -> None:
        self.known.append(found)
        self.looked.set()

    async def knows(self, rows: str) -> None:
        async with asyncio.timeout(10):
            while self.known[-1] != rows:
                self.looked.clear()
                await self.looked.wait()


@pytest.fixture
def bus() -> LossyBus:
    return LossyBus()


@pytest.fixture
async def table(bus: LossyBus) -> AsyncIterator[Table]:
    table = Table(bus)
    await table.mirror.open()
    yield table
    await table.mirror.close()


async def test_what_stands_there_is_known_from_the_start(table: Table) -> None:
    assert table.known == ["first"]


async def test_a_change_is_known_to_every_process(bus: LossyBus, table: Table) -> None:
    other = Table(bus)
    await other.mirror.open()
    table.rows = other.rows = "second"

    table.mirror.changed()

    await table.knows("second")
    await other.knows("second")
    await other.mirror.close()


async def test_after_a_gap_it_is_read_again(bus: LossyBus, table: Table) -> None:
    table.rows = "second"

    bus.gap()

    await table.knows("second")


async def test_what_was_read_before_a_change_is_not_taken(table: Table) -> None:
    table.open.clear()
    table.reading.clear()
    table.mirror.changed()
    await table.reading.wait()  # it holds "first", and has not come back with it
    table.rows = "second"
    table.mirror.changed()

    table.open.set()

    await table.knows("second")
    assert table.known == ["first", "second"]


async def test_what_was_known_counts_while_the_database_is_away(table: Table) -> None:
    table.away, table.rows = True, "second"
    table.looked.clear()
    table.mirror.changed()
    await table.looked.wait()
    assert table.known == ["first"]

    table.away = False
    table.mirror.changed()

    await table.knows("second")
