"""Reserving and settling, in memory; what was spent is written soon after.

A process leases blocks of credit from the database and spends from them. Every second
it writes down what it has spent, in one transaction for all users; a minute later at
the latest, or when the user is idle, that goes into the ledger, and what is left of an
idle lease goes back. A process that dies renews no more, and the others take back what
it held. See docs/adr/0009; API keys' daily limits are leased likewise, docs/adr/0018.

Of a user who has enough at hand, a call awaits nothing but the limiter: thousands of
them a second come by here.
"""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta
from uuid import UUID

import structlog
from sqlalchemy import true
from sqlalchemy.exc import SQLAlchemyError

from app.core.bus import Bus
from app.core.database import Database, utcnow
from app.core.exceptions import AppError, ForbiddenError
from app.core.metrics import CREDITS, quick
from app.core.ratelimit import Limiter
from app.integrations.llm.base import Usage
from app.models import CreditHolder, KeyLimits, Limits
from app.services.credits import batches
from app.services.credits.accounts import HolderLostError
from app.services.credits.batches import Batch
from app.services.credits.block import Block
from app.services.credits.need import Need
from app.services.credits.pace import Pace, minute_of
from app.services.credits.purse import Call, Reservation
from app.services.credits.purses import Purses
from app.services.credits.tally import Tally
from app.services.plan import Plans

_WRITE_SECONDS = 1.0
_HOLD = timedelta(seconds=60)
_RENEW_SECONDS = 20
_PAID, _ABSORBED = map(quick(CREDITS), ("user", "installation"))
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
        self._limiter = limiter
        self._plans = plans
        self._now = now
        self._wake = asyncio.Event()
        self._purses = Purses(database, bus=bus, now=now, wake=self._wake.set)
        self._tally = Tally()
        self._late: list[tuple[Limits, int]] = []
        self._paces: set[Pace] = set()
        """Of those whose tokens are limited, and who called in the last minute."""
        self._sharing = asyncio.Lock()
        self._batch: Batch | None = None
        self._writing = asyncio.Lock()
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
        asked: str | None = None,
    ) -> Reservation:
        """Put `amount` credits aside, the most that the call can cost.

        With `conversation` it counts as one of the day. `asked` is the name that the
        model was asked for by, where that is another: it is what plan and `key` must
        allow. Raises ForbiddenError for a model that they leave out, RateLimitedError
        beyond what they allow in a minute or on a day, InsufficientCreditsError (402),
        and UnavailableError where the database must be asked and is away. What costs
        nothing needs no credit.
        """
        limits = self._plans.known(user_id) or await self._plans.of(user_id)
        _require_allowed(limits, key, asked or call.model)
        now, use = self._now(), None
        if key is not None:
            use = self._purses.of_key(key.id)
            await use.pace.keep(key, self._limiter, seconds=now.timestamp())
            if use.pace.limited:
                self._paces.add(use.pace)
        purse = self._purses.of(limits)
        await purse.pace.keep(limits, self._limiter, seconds=now.timestamp())
        if purse.pace.limited:
            self._paces.add(purse.pace)
        credits_ = 0 if limits.monthly_credits is None else amount
        conversations = int(conversation and limits.daily_conversations is not None)
        while True:
            if purse.lost:
                purse = self._purses.of(limits)
            today = now.date()
            purse.begin_day(today)
            budget = use.budget(key, user_id, today) if use and key else None
            block: Block = purse
            if budget is not None and budget.free < amount:
                block, short = budget, Need(amount - budget.free)
            elif purse.free < credits_ or purse.conversations < conversations:
                short = purse.short(Need(credits_, conversations))
            elif self._purses.holder.is_trusted() or not (
                credits_ or conversations or (budget is not None and amount)
            ):
                break
            else:
                short = Need()
            await self._fill(block, short, now)
            now = self._now()
        used = call.by(user_id, today)
        limited = budget is not None or limits.monthly_credits is not None
        most = amount if limited else None
        reservation = Reservation(purse, call, used, credits_, most, use, budget)
        reservation.take(conversations)
        return reservation

    async def _fill(self, block: Block, short: Need, now: datetime) -> None:
        """Have more at hand, or be sure of what there is; raises where it was refused.

        It may take several steps: whoever asks looks again.
        """
        block.refuse(short, clock=time.monotonic(), now=now)
        if block.writing or not self._purses.holder.is_trusted():
            await self._catch_up()
        else:
            await self._purses.fill(block, short)

    async def _catch_up(self) -> None:
        """Wait for what is on its way to be written, and the leases to be surely ours.

        Of all who wait only the first writes: a write each, one after the other, would
        keep them from ever coming to an end.
        """
        async with self._writing:
            if self._batch is not None or not self._purses.holder.is_trusted():
                await self._write_all(renew=True)

    def settle(self, reservation: Reservation, actual: int, usage: Usage) -> int:
        """Book what the call cost; gives what the user pays of it.

        That is at most what was reserved: the rest is the installation's. It waits for
        nothing and cannot fail; a reservation is settled once.
        """
        if not reservation.open:
            return 0
        purse, most = reservation.purse, reservation.most
        paid = actual if most is None or actual < most else most
        if reservation.amount and purse.lost:
            self._late.append((purse.limits, paid))
        reservation.close(charged=paid)
        purse.used_at = time.monotonic()
        seconds = self._now().timestamp()
        tokens = usage.input_tokens + usage.output_tokens
        purse.pace.minute.add(tokens, seconds)
        if purse.pace.limited:
            self._paces.add(purse.pace)
        if (use := reservation.use) is not None:
            use.pace.minute.add(tokens, seconds)
            if use.pace.limited:
                self._paces.add(use.pace)
        self._tally.count(reservation.used, usage, paid=paid, absorbed=actual - paid)
        if paid:
            _PAID.inc(paid)
        if actual > paid:
            _ABSORBED.inc(actual - paid)
        return paid

    def cancel(self, reservation: Reservation) -> None:
        """Undo a reservation: the provider was never called."""
        if not reservation.open:
            return
        reservation.close(charged=0)
        purse = reservation.purse
        if reservation.conversation and reservation.conversation == purse.day:
            purse.conversations += 1

    async def allowed(
        self, user_id: UUID, key: KeyLimits | None
    ) -> Callable[[str], bool]:
        """Tells of a model's name whether the plan and the key allow it."""
        limits = await self._plans.of(user_id)
        return lambda name: limits.allows(name) and (key is None or key.allows(name))

    async def require_allowed(
        self, user_id: UUID, model: str, key: KeyLimits | None
    ) -> None:
        """Raises ForbiddenError for a model that the plan or the key leaves out."""
        _require_allowed(await self._plans.of(user_id), key, model)

    def tell_changed(self, user_id: UUID) -> None:
        """Have every process ask again for who was refused just now."""
        self._purses.tell_changed(user_id)

    # The life of the process

    async def open(self, *, alone: bool) -> None:
        """Begin; `alone` where every lease that is left is a dead process's."""
        await self._purses.open()
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
        await self._purses.close()
        try:
            await self.flush()
            async with self._database.unit_of_work() as session:
                await batches.take_back(
                    session, CreditHolder.id == self._purses.holder.id, now=self._now()
                )
        except AppError as error:
            _log.error("credits not settled", code=error.code)

    async def share_paces(self) -> None:
        """Tell other processes of tokens that were used here, and hear of theirs."""
        async with self._sharing:  # what is on its way must not be told twice
            minute = minute_of(self._now().timestamp())
            self._paces = {p for p in self._paces if p.minute.minute >= minute - 1}
            paces = {pace.name: pace.minute for pace in self._paces}
            told = {name: one.untold for name, one in paces.items()}
            for name, sums in (await self._limiter.add(minute, told)).items():
                paces[name].hear(minute, told[name], sums)

    async def flush(self, *, renew: bool = False) -> None:
        """Write what was spent since the last time; `renew` the lease in any case.

        Raises UnavailableError, and keeps what it could not write.
        """
        async with self._writing:
            await self._write_all(renew=renew)

    async def _write_all(self, *, renew: bool) -> None:
        if self._batch is None:
            self._batch = self._collect(renew=renew)
        if self._batch is not None:
            await self._write(self._batch)

    async def _write(self, batch: Batch) -> None:
        clock, now = time.monotonic(), self._now()
        holder_id, until = self._purses.holder.id, now + _HOLD
        try:
            if batch.sequence > 1 and not batch.changes_accounts:
                script = batches.writing(holder_id, batch, expires_at=until)
                await self._database.transact(script)
            else:
                async with self._database.unit_of_work() as session:
                    if batch.sequence == 1:
                        await batches.begin(session, holder_id, expires_at=until)
                    await batches.write(
                        session, holder_id, batch, now=now, expires_at=until
                    )
        except HolderLostError as error:
            if error.written:  # and entered, by whoever took the leases back
                self._purses.written(batch, clock)
            else:
                self._keep(batch)
            self._lose()
        else:
            self._purses.written(batch, clock)
        self._batch = None

    async def _write_regularly(self) -> None:
        looked = time.monotonic()
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(_WRITE_SECONDS):
                    await self._wake.wait()
            self._wake.clear()
            await self.share_paces()
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

    def _collect(self, *, renew: bool) -> Batch | None:
        """All that the database does not know yet; None where that is nothing."""
        purses, holder = self._purses, self._purses.holder
        lines, keys = purses.lines(), purses.key_lines()
        unused = time.monotonic() - holder.renewed
        renew |= holder.sequence > 0 and unused > _RENEW_SECONDS
        tally, self._tally = self._tally.without(purses.filled_keys())
        if not (lines or keys or tally or self._late or renew):
            return None
        batch = Batch(holder.sequence + 1, lines, keys, tally, tuple(self._late))
        self._late.clear()
        return batch

    def _keep(self, batch: Batch) -> None:
        """For the next one."""
        for used, counts in batch.tally.items():
            self._tally.add(used, counts)
        self._late.extend(batch.late)

    def _lose(self) -> None:
        """Begin anew: others have taken back our leases, and booked what was noted."""
        _log.warning("credits were taken back: this process was away for too long")
        self._late.extend(self._purses.lose())


def _require_allowed(limits: Limits, key: KeyLimits | None, model: str) -> None:
    if key is not None and not key.allows(model):
        whose = "This API key"
    elif not limits.allows(model):
        whose = "Your plan"
    else:
        return
    raise ForbiddenError(
        f"{whose} does not include the model {model}.", code="model_not_allowed"
    )
