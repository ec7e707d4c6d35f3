"""Reserving and settling, in memory; what was spent is written soon after.

A process leases blocks of credit from the database and spends from them. Every second
it writes down what it has spent, in one transaction for all users; a minute later at
the latest, or when the user is idle, that goes into the ledger, and what is left of an
idle lease goes back. A process that dies renews no more, and the others take back what
it held. See docs/adr/0009.
"""

import asyncio
import math
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import true
from sqlalchemy.exc import SQLAlchemyError
from uuid_utils.compat import uuid7

from app.core.bus import Bus
from app.core.database import Database, utcnow
from app.core.exceptions import AppError, ForbiddenError
from app.core.metrics import CREDITS
from app.core.ratelimit import Limiter
from app.integrations.llm.base import Usage
from app.models import CreditHolder, KeyLimits, Limits
from app.services.credits import accounts, batches, pace
from app.services.credits.accounts import HolderLostError
from app.services.credits.batches import Batch, Line, Tally, Used
from app.services.credits.keys import Keys
from app.services.credits.need import Need
from app.services.credits.purse import Call, Purse, Reservation
from app.services.plan import Plans

_WRITE_SECONDS = 1.0
_SETTLE_SECONDS = 60
_IDLE_SECONDS = 5
_FORGET_SECONDS = 120
_HOLD = timedelta(seconds=60)
_RENEW_SECONDS = 20
_TRUST_SECONDS = 45
"""After the last renewal: before others, whose clocks differ, take the leases back."""
_RECALL_SECONDS = 0.5
_RECALL, _CHANGED = "credits.recall", "credits.changed"
_log = structlog.get_logger()


class Credits:
    def __init__(
        self,
        database: Database,
        *,
        bus: Bus,
        limiter: Limiter,
        plans: Plans,
        now: Callable[[], datetime] = utcnow,
    ) -> None:
        self._database = database
        self._bus = bus
        self._limiter = limiter
        self._plans = plans
        self._keys = Keys(limiter, self._spent_by)
        self._now = now
        self._purses: dict[UUID, Purse] = {}
        self._tally = Tally()
        self._late: list[tuple[Limits, int]] = []
        self._holder_id = uuid7()
        self._sequence = 0
        self._renewed = -math.inf
        self._batch: Batch | None = None
        self._writing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    # What calls of models use

    async def reserve(
        self,
        user_id: UUID,
        amount: int,
        call: Call,
        *,
        conversation: bool = False,
        key: KeyLimits | None = None,
    ) -> Reservation:
        """Put `amount` credits aside, the most that the call can cost.

        With `conversation` it counts as one of the day. Raises ForbiddenError for a
        model that the plan or the `key` leaves out, RateLimitedError beyond what they
        allow in a minute or on a day, InsufficientCreditsError (402), and
        UnavailableError where the database must be asked and is away. What costs
        nothing needs no credit.
        """
        if key is None:
            return await self._reserve(user_id, amount, call, conversation=conversation)
        now = self._now()
        used = call.by(user_id, now.date())
        async with self._keys.holding(key, used, amount, now=now) as hold:
            reservation = await self._reserve(
                user_id, amount, call, conversation=conversation
            )
            reservation.hold = hold
            return reservation

    async def _reserve(
        self, user_id: UUID, amount: int, call: Call, *, conversation: bool
    ) -> Reservation:
        limits = await self._plans.of(user_id)
        if not limits.allows(call.model):
            raise ForbiddenError(
                f"Your plan does not include the model {call.model}.",
                code="model_not_allowed",
            )
        purse = self._purse(limits)
        await pace.keep(
            limits, purse.minute, self._limiter, seconds=self._now().timestamp()
        )
        need = Need(
            0 if limits.monthly_credits is None else amount,
            int(conversation and limits.daily_conversations is not None),
        )
        while True:
            now = self._now()
            purse.begin_day(now.date())
            short = purse.short(need)
            if short.nothing and (need.nothing or self._is_trusted()):
                return purse.take(call, need)
            purse.refuse(short, clock=time.monotonic(), now=now)
            await self._fill(purse, short)
            if purse.lost:
                purse = self._purse(limits)

    def settle(self, reservation: Reservation, actual: int, usage: Usage) -> int:
        """Book what the call cost; gives what the user pays of it.

        That is at most what was reserved: the rest is the installation's. It waits for
        nothing and cannot fail; a reservation is settled once.
        """
        if not reservation.open:
            return 0
        now = self._now()
        tokens = usage.input_tokens + usage.output_tokens
        reservation.close(tokens, now.timestamp())
        purse = reservation.purse
        paid = actual if reservation.unlimited else min(actual, reservation.amount)
        if purse.lost and reservation.amount:
            self._late.append((purse.limits, paid))
        elif reservation.amount:
            purse.give_back(reservation, charged=paid)
        purse.used_at = time.monotonic()
        purse.minute.add(tokens, now.timestamp())
        used = reservation.call.by(purse.limits.user_id, now.date())
        self._tally.count(used, usage, paid=paid, absorbed=actual - paid)
        CREDITS.labels("user").inc(paid)
        CREDITS.labels("installation").inc(actual - paid)
        return paid

    def cancel(self, reservation: Reservation) -> None:
        """Undo a reservation: the provider was never called."""
        if not reservation.open:
            return
        reservation.close()
        purse = reservation.purse
        if not purse.lost:
            purse.give_back(reservation, charged=0)
            if reservation.conversation and reservation.conversation == purse.day:
                purse.conversations += 1

    def tell_changed(self, user_id: UUID) -> None:
        """Have every process ask again for who was refused just now."""
        self._bus.say(_CHANGED, user_id.bytes)

    # The life of the process

    async def open(self, *, alone: bool) -> None:
        """Begin; `alone` where every lease that is left is a dead process's."""
        await self._bus.listen(_RECALL, self._recalled)
        await self._bus.listen(_CHANGED, self._has_changed)
        now = self._now()
        async with self._database.unit_of_work() as session:
            which = true() if alone else CreditHolder.expires_at < now
            await batches.take_back(session, which, now=now)
        self._writer = asyncio.create_task(self._write_regularly())

    async def close(self) -> None:
        """Write all that was spent, and give back all that is held.

        What is still reserved by then is given back, too: nobody settles it any more.
        """
        if self._writer is None:
            return
        self._writer.cancel()
        with suppress(asyncio.CancelledError):
            await self._writer
        await self._bus.unlisten(_RECALL, self._recalled)
        await self._bus.unlisten(_CHANGED, self._has_changed)
        try:
            await self.flush()
            async with self._database.unit_of_work() as session:
                await batches.take_back(
                    session, CreditHolder.id == self._holder_id, now=self._now()
                )
        except AppError as error:
            _log.error("credits not settled", code=error.code)

    async def flush(self, *, renew: bool = False) -> None:
        """Write what was spent since the last time; `renew` the lease in any case.

        Raises UnavailableError, and keeps what it could not write.
        """
        async with self._writing:
            if self._batch is None:
                self._batch = self._collect(renew=renew)
            if self._batch is not None:
                await self._write(self._batch)

    async def _write(self, batch: Batch) -> None:
        clock, now = time.monotonic(), self._now()
        until = now + _HOLD
        try:
            async with self._database.unit_of_work() as session:
                if batch.sequence == 1:
                    await batches.begin(session, self._holder_id, expires_at=until)
                await batches.write(
                    session, self._holder_id, batch, now=now, expires_at=until
                )
        except HolderLostError:
            self._lose(batch)
        else:
            self._written(batch, clock)
        self._batch = None

    async def _write_regularly(self) -> None:
        looked = time.monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.flush()
                if time.monotonic() - looked > _RENEW_SECONDS:
                    looked = time.monotonic()
                    await self._reclaim()
            except AppError as error:
                _log.warning("credits not written", code=error.code)
            except SQLAlchemyError as error:
                _log.error("credits not written", exc_info=error)

    async def _reclaim(self) -> None:
        now = self._now()
        async with self._database.unit_of_work() as session:
            gone = await batches.take_back(
                session, CreditHolder.expires_at < now, now=now
            )
        if gone:
            _log.warning("credits of lost processes", processes=gone)

    async def _spent_by(self, used: Used) -> int:
        """What a key has spent on a day, what is not written yet among it."""
        async with self._writing:  # so that nothing is on its way just now
            async with self._database.unit_of_work(read_only=True) as session:
                written = await batches.spent_by(session, used)
            waiting = (self._tally, self._batch.tally if self._batch else Tally())
            return written + sum(t.spent_by(used.key_id, used.day) for t in waiting)

    # Purses

    def _purse(self, limits: Limits) -> Purse:
        clock = time.monotonic()
        purse = self._purses.get(limits.user_id)
        if purse is None:
            purse = Purse(limits, used_at=clock, settled_at=clock)
            self._purses[limits.user_id] = purse
        if purse.limits != limits:
            purse.limits, purse.refused = limits, None
        purse.used_at = clock
        return purse

    def _is_trusted(self) -> bool:
        """Whether nobody can have taken back yet what we hold."""
        return time.monotonic() - self._renewed < _TRUST_SECONDS

    async def _fill(self, purse: Purse, short: Need) -> None:
        """Lease what is short; one lease at a time for a user, whoever waits for it.

        It goes on where who asked has left: its answer must not get lost.
        """
        if purse.writing or not self._is_trusted():
            await self.flush(renew=True)
            return
        if purse.filling is None:
            purse.filling = asyncio.create_task(self._lease(purse, short))
            purse.filling.add_done_callback(lambda task: _filled(purse, task))
        await asyncio.shield(purse.filling)

    async def _lease(self, purse: Purse, short: Need) -> None:
        deadline = math.inf
        while not purse.lost:
            held = Need(purse.free + purse.reserved + purse.spent, purse.conversations)
            try:
                async with self._database.unit_of_work() as session:
                    taken = await accounts.lease(
                        session,
                        purse.limits,
                        holder_id=self._holder_id,
                        held=held,
                        short=short,
                        now=self._now(),
                    )
            except HolderLostError:
                self._renewed = -math.inf  # the next batch finds it out
                return
            purse.fill(taken.got, taken.day)
            if not taken.got.nothing:
                return
            if deadline is math.inf:
                deadline = time.monotonic() + _RECALL_SECONDS
                purse.changed.clear()
                message = self._holder_id.bytes + purse.limits.user_id.bytes
                self._bus.say(_RECALL, message)
            seconds = deadline - time.monotonic() if taken.elsewhere else 0
            if not await purse.has_changed(seconds):
                purse.was_refused(taken.left, time.monotonic())
                return

    def _recalled(self, message: bytes) -> None:
        """Another process is short of what we may have to spare."""
        holder_id, user_id = UUID(bytes=message[:16]), UUID(bytes=message[16:])
        purse = self._purses.get(user_id)
        if holder_id == self._holder_id or purse is None or not purse.leased:
            return
        # Of nothing nobody is told: else the processes would ask each other for ever.
        if purse.free or purse.conversations:
            purse.recalled = True
            self._wake.set()

    def _has_changed(self, message: bytes) -> None:
        purse = self._purses.get(UUID(bytes=message))
        if purse is not None:
            purse.refused = None
            purse.changed.set()

    # Batches

    def _collect(self, *, renew: bool) -> Batch | None:
        """All that the database does not know yet; None where that is nothing."""
        clock = time.monotonic()
        self._keys.forget_idle()
        lines: list[Line] = []
        for user_id, purse in tuple(self._purses.items()):
            unused = clock - purse.used_at
            line = purse.line(
                settle=purse.spent > 0 and clock - purse.settled_at > _SETTLE_SECONDS,
                close=purse.recalled
                or (purse.reserved == 0 and unused > _IDLE_SECONDS),
            )
            if line is not None:
                lines.append(line)
            elif not (purse.leased or purse.filling) and unused > _FORGET_SECONDS:
                del self._purses[user_id]
        renew |= self._sequence > 0 and clock - self._renewed > _RENEW_SECONDS
        if not (lines or self._tally or self._late or renew):
            return None
        batch = Batch(self._sequence + 1, lines, self._tally, tuple(self._late))
        self._tally = Tally()
        self._late.clear()
        return batch

    def _written(self, batch: Batch, clock: float) -> None:
        self._sequence, self._renewed = batch.sequence, clock
        for line in batch.lines:
            purse = self._purses[line.user_id]
            purse.written(line, clock)
            if purse.recalled:
                purse.recalled = False
                self.tell_changed(line.user_id)

    def _lose(self, batch: Batch) -> None:
        """Begin anew: others have taken back our leases, and booked what was noted."""
        _log.warning("credits were taken back: this process was away for too long")
        self._holder_id, self._sequence = uuid7(), 0
        self._renewed = -math.inf
        for used, counts in batch.tally.items():
            self._tally.add(used, counts)
        self._late.extend(batch.late)
        for purse in self._purses.values():
            purse.lost = True
            if purse.spent > purse.noted:
                self._late.append((purse.limits, purse.spent - purse.noted))
        self._purses = {}


def _filled(purse: Purse, task: asyncio.Task[None]) -> None:
    purse.filling = None
    if not task.cancelled():
        task.exception()  # whoever waits for it gets it
