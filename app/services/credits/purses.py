"""The blocks that this process holds: they are filled, recalled, and written."""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from uuid_utils.compat import uuid7

from app.core.bus import Bus
from app.core.database import Database
from app.models import Limits
from app.services.credits.accounts import HolderLostError
from app.services.credits.batches import Batch, Line
from app.services.credits.block import Block
from app.services.credits.budgets import KeyLine
from app.services.credits.keys import KeyUse
from app.services.credits.need import Need
from app.services.credits.pace import Pace
from app.services.credits.purse import Purse

_SETTLE_SECONDS = 60
_IDLE_SECONDS = 5
_FORGET_SECONDS = 120
TRUST_SECONDS = 45
"""After the last renewal: before others, whose clocks differ, take the leases back."""
_RECALL_SECONDS = 0.5
_RECALL, _CHANGED = "credits.recall", "credits.changed"


@dataclass(slots=True)
class Holder:
    """Who leases, for the database; `sequence` counts what was written."""

    id: UUID = field(default_factory=uuid7)
    sequence: int = 0
    renewed: float = -math.inf

    def is_trusted(self) -> bool:
        """Whether nobody can have taken back yet what we hold."""
        return time.monotonic() - self.renewed < TRUST_SECONDS


class Purses:
    """Of users and of API keys; `wake` is called when something is to be written."""

    def __init__(
        self,
        database: Database,
        *,
        bus: Bus,
        now: Callable[[], datetime],
        wake: Callable[[], None],
    ) -> None:
        self._database = database
        self._bus = bus
        self._now = now
        self._wake = wake
        self.holder = Holder()
        self.users: dict[UUID, Purse] = {}
        self.keys: dict[UUID, KeyUse] = {}

    async def open(self) -> None:
        await self._bus.listen(_RECALL, self._recalled)
        await self._bus.listen(_CHANGED, self._has_changed)

    async def close(self) -> None:
        await self._bus.unlisten(_RECALL, self._recalled)
        await self._bus.unlisten(_CHANGED, self._has_changed)

    def of(self, limits: Limits) -> Purse:
        clock = time.monotonic()
        purse = self.users.get(limits.user_id)
        if purse is None:
            purse = Purse(limits=limits, used_at=clock, settled_at=clock)
            self.users[limits.user_id] = purse
        if purse.limits is not limits and purse.limits != limits:
            purse.limits, purse.refused = limits, None
        purse.used_at = clock
        return purse

    def of_key(self, key_id: UUID) -> KeyUse:
        use = self.keys.get(key_id)
        if use is None:
            use = self.keys[key_id] = KeyUse(0, Pace("key", key_id))
        use.used_at = time.monotonic()
        return use

    def tell_changed(self, whose: UUID) -> None:
        """Have every process ask again for who was refused just now."""
        self._bus.say(_CHANGED, whose.bytes)

    # Leases

    async def fill(self, block: Block, short: Need) -> None:
        """Lease what is short; one lease at a time for each, whoever waits for it.

        It goes on where who asked has left: its answer must not get lost.
        """
        # Nobody waits for one that is done, but whose end has not been heard of yet: it
        # would be no waiting at all, so that its end never could be heard of.
        if block.filling is None or block.filling.done():
            block.filling = asyncio.create_task(self._lease(block, short))
            block.filling.add_done_callback(lambda task: _filled(block, task))
        await asyncio.shield(block.filling)

    async def _lease(self, block: Block, short: Need) -> None:
        deadline = math.inf
        while not block.lost:
            try:
                async with self._database.unit_of_work() as session:
                    taken = await block.lease(
                        session, self.holder.id, short, self._now()
                    )
            except HolderLostError:
                self.holder.renewed = -math.inf  # the next batch finds it out
                return
            block.fill(taken)
            if taken.got != Need():
                return
            if deadline is math.inf:
                deadline = time.monotonic() + _RECALL_SECONDS
                block.changed.clear()
                self._bus.say(_RECALL, self.holder.id.bytes + block.id.bytes)
            seconds = deadline - time.monotonic() if taken.elsewhere else 0
            if not await block.has_changed(seconds):
                block.was_refused(taken.left, time.monotonic())
                return

    def _recalled(self, message: bytes) -> None:
        """Another process is short of what we may have to spare."""
        holder_id, whose = UUID(bytes=message[:16]), UUID(bytes=message[16:])
        if holder_id == self.holder.id:
            return
        for block in self._blocks(whose):
            # Of nothing nobody is told: else they would ask each other for ever.
            if block.leased and block.spare:
                block.recalled = True
                self._wake()

    def _has_changed(self, message: bytes) -> None:
        for block in self._blocks(UUID(bytes=message)):
            block.refused = None
            block.changed.set()

    def _blocks(self, whose: UUID) -> list[Block]:
        blocks: list[Block] = []
        if (purse := self.users.get(whose)) is not None:
            blocks.append(purse)
        if (use := self.keys.get(whose)) is not None:
            blocks.extend(use.budgets.values())
        return blocks

    # Batches

    def lines(self) -> list[Line]:
        """What the database does not know of users' leases."""
        clock = time.monotonic()
        lines: list[Line] = []
        for user_id, purse in tuple(self.users.items()):
            unused = clock - purse.used_at
            line = purse.line(
                settle=purse.spent > 0 and clock - purse.settled_at > _SETTLE_SECONDS,
                close=purse.recalled
                or (purse.reserved == 0 and unused > _IDLE_SECONDS),
            )
            if line is not None:
                lines.append(line)
            elif not (purse.leased or purse.filling) and unused > _FORGET_SECONDS:
                del self.users[user_id]
        return lines

    def key_lines(self) -> list[KeyLine]:
        """The same of keys' budgets."""
        clock, today = time.monotonic(), self._now().date()
        lines: list[KeyLine] = []
        for key_id, use in tuple(self.keys.items()):
            for day, budget in tuple(use.budgets.items()):
                unused = clock - budget.used_at
                idle = budget.reserved == 0 and (unused > _IDLE_SECONDS or day < today)
                line = budget.line(close=budget.recalled or idle)
                if line is not None:
                    lines.append(line)
                elif idle and not (budget.leased or budget.filling):
                    del use.budgets[day]
            if not use.budgets and clock - use.used_at > _FORGET_SECONDS:
                del self.keys[key_id]
        return lines

    def filled_keys(self) -> set[UUID]:
        """Those whose spending must not be written just now."""
        return {
            key_id
            for key_id, use in self.keys.items()
            if any(budget.filling for budget in use.budgets.values())
        }

    def written(self, batch: Batch, clock: float) -> None:
        self.holder.sequence, self.holder.renewed = batch.sequence, clock
        for line in batch.lines:
            self.users[line.user_id].written(line, clock)
            if line.told:
                self.tell_changed(line.user_id)
        for one in batch.keys:
            self.keys[one.key_id].budgets[one.day].written(one)
            if one.told:
                self.tell_changed(one.key_id)

    def lose(self) -> list[tuple[Limits, int]]:
        """Begin anew; gives what users owe that was not noted yet."""
        self.holder = Holder()
        late = [
            (purse.limits, purse.spent - purse.noted)
            for purse in self.users.values()
            if purse.spent > purse.noted
        ]
        for purse in self.users.values():
            purse.lost = True
        for use in self.keys.values():
            for budget in use.budgets.values():
                budget.lost = True
            use.budgets = {}
        self.users = {}
        return late


def _filled(block: Block, task: asyncio.Task[None]) -> None:
    if block.filling is task:
        block.filling = None
    if not task.cancelled():
        task.exception()  # whoever waits for it gets it
