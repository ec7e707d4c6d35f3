"""TRUST K2, M1, M3, F10: whatever happens in whatever order, a key's limit holds."""

import asyncio
from collections import Counter
from collections.abc import Coroutine
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import select

from app.core.config import Settings
from app.core.database import Database
from app.models import KeyLease
from app.services.credits.keys import KeyLimitError
from app.services.credits.leasing import Credits
from app.services.credits.purse import Call, Reservation
from app.services.credits.tally import COUNTS
from tests.conftest import SettingsFactory
from tests.integration.house import USAGE, House

T = TypeVar("T")

PROCESS = st.integers(0, 1)
AMOUNT = st.integers(1, 600)
ANY = st.integers(0, 1000)
LIMIT = st.sampled_from([300, 1000, 2000])


class Keys(RuleBasedStateMachine):
    """Two processes that spend by one key, whose limit its owner changes.

    `paid` is what settlements said was paid, by the day on which the call began; `most`
    the highest limit that there was on it. Of days that a process has `overslept`, what
    it had under way may be spent by others, too.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = Database(settings)
        self.house = House(self.database)
        self.house.now = self.now = datetime(2026, 11, 30, 12, tzinfo=UTC)
        self.paid: Counter[date] = Counter()
        self.most: Counter[date] = Counter()
        self.open: list[tuple[Credits, Reservation]] = []
        self.overslept: set[date] = set()
        self.user = self.do(self.house.user())
        self.key = self.do(self.house.key(self.user, daily_credit_limit=1000))
        for _ in range(2):
            self.do(self.house.process())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def process(self, number: int) -> Credits:
        return self.house.processes[number]

    @property
    def today(self) -> date:
        return self.now.date()

    @property
    def limit(self) -> int:
        assert self.key.daily_credit_limit is not None
        return self.key.daily_credit_limit

    def promised(self, day: date) -> int:
        """What calls that began on a day have paid, or may still pay."""
        running = sum(r.most or 0 for _, r in self.open if r.used.day == day)
        return self.paid[day] + running

    @rule(number=PROCESS, amount=AMOUNT)
    def reserve(self, number: int, amount: int) -> None:
        process = self.process(number)
        call = Call("gateway", "openai/some", self.key.id)
        self.most[self.today] = max(self.most[self.today], self.limit)
        try:
            reservation = self.do(
                process.reserve(self.user, amount, call, key=self.key)
            )
        except KeyLimitError:
            return
        self.open.append((process, reservation))
        assert reservation.used.day == self.today
        if self.today not in self.overslept:
            assert self.promised(self.today) <= self.limit

    @precondition(lambda self: self.open)
    @rule(which=ANY, actual=st.integers(0, 900))
    def settle(self, which: int, actual: int) -> None:
        process, reservation = self.open.pop(which % len(self.open))
        paid = process.settle(reservation, actual, USAGE)
        assert paid == min(actual, reservation.most or 0)
        self.paid[reservation.used.day] += paid

    @precondition(lambda self: self.open)
    @rule(which=ANY)
    def cancel(self, which: int) -> None:
        process, reservation = self.open.pop(which % len(self.open))
        process.cancel(reservation)

    @rule(number=PROCESS, amount=AMOUNT, actual=st.integers(0, 900))
    def call(self, number: int, amount: int, actual: int) -> None:
        self.reserve(number, amount)
        if self.open:
            self.settle(len(self.open) - 1, actual)

    @rule(number=PROCESS, give_back=st.booleans())
    def write(self, number: int, *, give_back: bool) -> None:
        """`give_back` as when another process asks for it, or the key is idle."""
        process = self.process(number)
        for use in process._purses.keys.values():
            for budget in use.budgets.values():
                budget.recalled = budget.leased and give_back
        self.do(process.flush())

    @rule(limit=LIMIT)
    def change(self, limit: int) -> None:
        self.key = replace(self.key, daily_credit_limit=limit)

    @rule()
    def pass_midnight(self) -> None:
        self.house.now = self.now = self.now + timedelta(days=1)
        for process in self.house.processes:
            self.do(process.flush(renew=True))

    @rule(number=PROCESS, how=st.sampled_from(["restart", "kill", "sleep"]))
    def trouble(self, number: int, how: str) -> None:
        process, other = self.process(number), self.process(1 - number)
        if how == "restart":  # what is open by then nobody settles any more
            self.do(self.house.end(process))
            self._replaced(process)
            return
        if how == "kill":
            self.do(self._kill(process))
        self.do(self.house.expire(process))
        self.do(other._reclaim())
        if how == "kill":
            self._replaced(process)
        else:  # what it has under way, others may spend a second time
            self.overslept.update(self.most)
            self.do(process.flush(renew=True))

    async def _kill(self, process: Credits) -> None:
        """What it had not written is lost: nobody has paid for it."""
        async with process._writing:
            for used, counts in process._tally.items():
                self.paid[used.day] -= counts[COUNTS.index("credits")]
            await self.house.kill(process)

    def _replaced(self, gone: Credits) -> None:
        self.open = [one for one in self.open if one[0] is not gone]
        self.do(self.house.process())

    @invariant()
    def the_database_promises_no_more_than_the_limit(self) -> None:
        for day, most in self.most.items():
            promised = self.do(self.house.promised(self.key, day))
            assert promised <= most or day in self.overslept

    def teardown(self) -> None:
        self.do(self.house.close())
        for day in self.most:
            assert self.do(self.house.promised(self.key, day)) == self.paid[day]
        assert self.do(self.house.scalar(select(KeyLease.id).limit(1))) is None
        self.do(self.database.close())
        self.runner.close()


def test_a_key_s_limit_holds_whatever_happens(settings_with: SettingsFactory) -> None:
    """TRUST K2, M1, M3, F10: over two processes, deaths, midnights, other limits."""

    class Here(Keys):
        def __init__(self) -> None:
            super().__init__(settings_with())

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=12,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
