"""TRUST M1, F10: whatever happens in whatever order, the ledger is sound."""

import asyncio
from collections.abc import Coroutine
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

from app.core.config import Settings
from app.core.database import Database
from app.core.exceptions import ConflictError
from app.services.credits.leasing import Credits
from app.services.credits.purse import InsufficientCreditsError, Reservation
from tests.conftest import SettingsFactory
from tests.integration.house import CHAT, USAGE, House

T = TypeVar("T")

MONTHLY = 1000
PROCESS = st.integers(0, 1)
AMOUNT = st.integers(0, 600)
ANY = st.integers(0, 1000)


class Money(RuleBasedStateMachine):
    """Two processes that spend what one user has, and a desk that changes it.

    `given` is what the user got in all, `paid` what settlements said was paid.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.database = Database(settings)
        self.house = House(self.database)
        self.given, self.paid = MONTHLY, 0
        self.lossless = True
        self.open: list[tuple[Credits, Reservation]] = []
        self.user = self.do(self.house.user(monthly_credits=MONTHLY))
        for _ in range(2):
            self.do(self.house.process())
        # So that there is an account to look at.
        process = self.house.processes[0]
        process.cancel(self.do(process.reserve(self.user, 1, CHAT)))

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def process(self, number: int) -> Credits:
        return self.house.processes[number]

    @rule(number=PROCESS, amount=AMOUNT)
    def reserve(self, number: int, amount: int) -> None:
        process = self.process(number)
        try:
            reservation = self.do(process.reserve(self.user, amount, CHAT))
        except InsufficientCreditsError:
            return
        self.open.append((process, reservation))

    @precondition(lambda self: self.open)
    @rule(which=ANY, actual=st.integers(0, 900))
    def settle(self, which: int, actual: int) -> None:
        process, reservation = self.open.pop(which % len(self.open))
        paid = process.settle(reservation, actual, USAGE)
        assert paid == min(actual, reservation.amount)
        self.paid += paid

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
        """`give_back` as when another process asks for it, or the user is idle."""
        process = self.process(number)
        for purse in process._purses.users.values():
            purse.recalled = purse.leased and give_back
        self.do(process.flush())

    @rule(amount=st.integers(-700, 700).filter(bool))
    def adjust(self, amount: int) -> None:
        try:
            self.do(self.house.adjust(self.user, amount))
        except ConflictError:
            return
        self.given += amount

    @rule(number=PROCESS, how=st.sampled_from(["restart", "kill", "sleep"]))
    def trouble(self, number: int, how: str) -> None:
        process, other = self.process(number), self.process(1 - number)
        if how == "restart":  # what is open by then nobody settles any more
            self.do(self.house.end(process))
            self._replaced(process)
            return
        self.lossless = False  # what it had not written yet, and others spent meanwhile
        self.do(self.house.expire(process))
        if how == "kill":
            self.do(self.house.kill(process))
            self._replaced(process)
        self.do(other._reclaim())
        if how == "sleep":
            self.do(process.flush(renew=True))

    def _replaced(self, gone: Credits) -> None:
        self.open = [one for one in self.open if one[0] is not gone]
        self.do(self.house.process())

    @invariant()
    def the_ledger_is_sound(self) -> None:
        self.do(self.house.assert_sound(self.user))

    @invariant()
    def no_more_is_admitted_than_there_is(self) -> None:
        if self.lossless:
            promised = sum(reservation.amount for _, reservation in self.open)
            assert self.paid + promised <= self.given

    def teardown(self) -> None:
        self.do(self.house.close())
        account = self.do(self.house.assert_sound(self.user))
        assert account.leased == 0
        assert account.balance >= self.given - self.paid
        if self.lossless:
            assert account.balance == self.given - self.paid
        self.do(self.database.close())
        self.runner.close()


def test_the_ledger_is_sound_whatever_happens(settings_with: SettingsFactory) -> None:
    """TRUST M1, F10: balance equals ledger and is never negative."""

    class Here(Money):
        def __init__(self) -> None:
            super().__init__(settings_with())

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=12,
            stateful_step_count=20,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
