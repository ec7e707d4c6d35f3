"""One turn, from the request that a model gets to the reply that is stored.

It reads as it runs: `run` streams from the provider into the reply, settles what it
used, stores the end, and only then tells the followers. Saving the text meanwhile is
the business of `turns`, which knows all that run.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any, Literal
from uuid import UUID

import structlog
from sqlalchemy import bindparam, update
from sqlalchemy.exc import SQLAlchemyError

from app.core import sse
from app.core.database import Database
from app.core.exceptions import AppError, NotFoundError, UnavailableError
from app.core.metrics import FIRST_TOKEN, TOKENS, TURNS, TURNS_RUNNING, quick
from app.core.statements import Script, Statement
from app.integrations.llm.base import (
    Block,
    Citation,
    ProviderEvent,
    TextDelta,
    ThinkingDelta,
    ToolUseStart,
    Usage,
    is_answer,
)
from app.integrations.llm.idle import was_idle
from app.integrations.llm.routing import Candidate, Router
from app.integrations.llm.tokens import estimate_tokens
from app.models import Message
from app.schemas.message import message_json
from app.services import job as jobs
from app.services.chat.books import Account
from app.services.chat.choices import Choice
from app.services.chat.quotes import Quotes
from app.services.chat.reply import Position, Reply
from app.services.chat.search_index import SearchIndex

Ending = Literal["stopped", "interrupted"]

_NOTHING = Usage(0, 0)
_STORE_TRIES = 8
_TOKENS = (TextDelta, ThinkingDelta, ToolUseStart)
_log = structlog.get_logger()

# Of each there are few: providers, times statuses.
_first_token = cache(FIRST_TOKEN.labels)
_tokens = quick(TOKENS)
_turns = quick(TURNS)


@dataclass(slots=True, eq=False)
class Turn:
    """A turn that runs in this process.

    `message` is its reply's row as stored last; `choices` are what may write it, in
    this order, and `chosen` is which was called last; `quotes` finds what it quotes.
    `earlier` is what attempts before this one used; `failure` is why it failed, once it
    has. `account` is what this attempt is paid from; `on_event` tells other processes.
    `leans_on` are the project whose words the models get, and the user who may see it.
    """

    message: Message
    choices: Sequence[Choice]
    router: Router
    reply: Reply
    wants_title: bool
    question: Sequence[Block] = ()
    earlier: Usage | None = None
    account: Account | None = None
    on_event: Callable[[ProviderEvent], None] | None = None
    saved: tuple[Position, datetime] | None = None
    failure: AppError | None = None
    leans_on: tuple[UUID, UUID] | None = None
    quotes: Quotes | None = None
    finished: asyncio.Event = field(default_factory=asyncio.Event)
    chosen: Choice = field(init=False)
    _streaming: asyncio.Task[None] | None = None
    _idle: bool = False
    """Whether it was ended while no provider was at work on it."""
    _ending: Ending | None = None
    _reason: AppError | None = None

    def __post_init__(self) -> None:
        self.chosen = self.choices[0]

    @property
    def _provider(self) -> str:
        return self.chosen.candidate.provider.name

    def end(self, how: Ending, reason: AppError | None = None) -> None:
        """Break the stream off; what has come stays. Too late, it does nothing.

        `reason` is told where nobody asked for it.
        """
        if self._ending is None:
            self._ending, self._reason = how, reason
        if self._streaming is not None:
            self._streaming.cancel()

    async def result(self) -> Message:
        """Wait for the end; raises the AppError that it failed with."""
        await self.finished.wait()
        if self.failure is not None:
            raise self.failure
        return self.message

    async def run(self, database: Database, index: SearchIndex) -> None:
        with TURNS_RUNNING.track_inprogress():
            await self._run(database, index)
        _turns(self._provider, self.message.status).inc()

    async def _run(self, database: Database, index: SearchIndex) -> None:
        begun = time.perf_counter()
        self._streaming = asyncio.create_task(self._stream())
        if self._ending is not None:  # ended before it began
            self._streaming.cancel()
        await asyncio.wait([self._streaming])
        if self.quotes is not None:
            self._take(*self.quotes.rest())
        values = self._outcome(self._streaming)
        used, paid = self._settle()
        values["credits"] = values["billed"] = self.message.credits + paid
        stored = await self._store(database, values)
        for name, value in values.items():
            setattr(self.message, name, value)
        if stored:
            index.add(self.message.chat_id, self.message.id, self.reply.text)
        if not stored and self.failure is None:
            self.failure = NotFoundError("This message was deleted.")
        self.reply.finish(ending(self.message) if stored else _broken_off(self.failure))
        self.finished.set()
        await self._log(used, paid, time.perf_counter() - begun)

    def _settle(self) -> tuple[Usage, int]:
        """Pay for this attempt: what was used, and what the user pays of it.

        A call that failed, or ended, before the provider took it costs nothing.
        """
        assert self.account is not None
        used = self._used()
        if used is _NOTHING:
            self.account.cancel()
            return used, 0
        tokens = used.input_tokens + used.output_tokens
        self.chosen.candidate.count(tokens - self.choices[0].input_estimate)
        return used, self.account.settle(used)

    async def _log(self, used: Usage, paid: int, seconds: float) -> None:
        assert self.account is not None
        await self.account.log(
            status=self.message.status,
            used=used,
            paid=paid,
            seconds=seconds,
            messages=[
                {"role": "user", "content": list(self.question)},
                {"role": "assistant", "content": self.message.content},
            ],
        )

    def credits(self) -> int:
        """What all attempts cost so far, were this one to end now."""
        assert self.account is not None
        return self.message.credits + self.account.cost(self._used())

    def usage(self) -> Usage:
        """What all attempts used so far."""
        used = self._used()
        return self.earlier + used if self.earlier else used

    def _used(self) -> Usage:
        """What this attempt used; estimated where the provider's word lacks."""
        told = self.reply.usage
        if told is None and (self.failure is not None or self._idle):
            return _NOTHING
        if told is not None and self.reply.stop is not None:
            return told
        # Broken off: the provider bills what it wrote, but has not said how much.
        written = estimate_tokens(self.reply.written)
        counted = self.earlier.output_tokens if self.earlier else 0
        return Usage(
            input_tokens=(told.input_tokens if told else self.chosen.input_estimate),
            output_tokens=max(written - counted, told.output_tokens if told else 0),
            cache_read_tokens=told.cache_read_tokens if told else 0,
            cache_write_tokens=told.cache_write_tokens if told else 0,
            estimated=True,
        )

    async def _stream(self) -> None:
        try:
            await self._read()
        except asyncio.CancelledError as error:
            self._idle = was_idle(error)
            raise

    async def _read(self) -> None:
        begun = time.perf_counter()
        stream = self.router.routed(
            [choice.candidate for choice in self.choices],
            self._call,
            begun=is_answer,
            tokens=self.choices[0].input_estimate,
        )
        async with aclosing(stream) as events:
            async for event in events:
                if type(event) is Citation:
                    self._cite(event)
                    continue
                self._take(event)
                if self.quotes is not None and type(event) is TextDelta:
                    self._take(*self.quotes.read(event.text))
                if begun and isinstance(event, _TOKENS):
                    waited = time.perf_counter() - begun
                    _first_token(self._provider).observe(waited)
                    begun = 0

    def _take(self, *events: ProviderEvent) -> None:
        for event in events:
            self.reply.apply(event)
            if self.on_event is not None:
                self.on_event(event)

    def _cite(self, told: Citation) -> None:
        """What the provider says that it quotes: only the guide's manual is not ours.

        No other one is believed, but where what it quotes stands in a source.
        """
        found = self.quotes.check(told) if self.quotes is not None else None
        if found is None and self._provider == "guide":
            found = told
        if found is not None:
            self._take(found)

    def _call(self, candidate: Candidate) -> AsyncGenerator[ProviderEvent]:
        """Have that one write, and be paid for it."""
        assert self.account is not None
        self.chosen = next(c for c in self.choices if c.candidate is candidate)
        self.account.goes_to(candidate.model)
        if sources := self.chosen.context.sources:
            reply = self.reply
            self.quotes = Quotes(sources, text=reply.text, known=reply.citations)
        return candidate.provider.stream(self.chosen.request)  # type: ignore[return-value]  # every provider's stream is an async generator

    def _outcome(self, streaming: asyncio.Task[None]) -> dict[str, Any]:
        """The columns that the ended stream leaves."""
        status: str = "complete"
        told: AppError | None = None
        if streaming.cancelled():
            status, told = self._ending or "interrupted", self._reason
        elif (error := streaming.exception()) is not None:
            status = "error"
            told = self.failure = self._failure(error)
        used, usage = self._used(), self.usage()
        _tokens(self._provider, "input").inc(used.input_tokens)
        _tokens(self._provider, "output").inc(used.output_tokens)
        return {
            "model": self.chosen.model.name,
            "status": status,
            "content": self.reply.content,
            "citations": self.reply.citations,
            "stop_reason": self.reply.stop.reason if self.reply.stop else None,
            "error": told.problem() if told else None,
            "usage": usage.as_dict(),
            "lease_expires_at": None,
        }

    def _failure(self, error: BaseException) -> AppError:
        if not isinstance(error, AppError):
            _log.error("turn failed", message_id=str(self.message.id), exc_info=error)
            error = AppError("Something went wrong on our side; the text is kept.")
        error.extra["message_id"] = str(self.message.id)
        return error

    async def _store(self, database: Database, values: dict[str, Any]) -> bool:
        """Store the end; False where the message is no more.

        Tried again while the database is away: the text exists nowhere else.
        """
        away: UnavailableError | None = None
        for attempt in range(_STORE_TRIES):
            try:
                return await self._store_once(database, values)
            except UnavailableError as error:
                away = error
                _log.warning("reply not stored yet", message_id=str(self.message.id))
                await asyncio.sleep(min(0.25 * 2**attempt, 8))
            except SQLAlchemyError as error:
                # Its readers must hear of an end; the lease tells the database of it.
                self.failure = self._failure(error)
                return False
        self.failure = away
        return False

    async def _store_once(self, database: Database, values: dict[str, Any]) -> bool:
        stored = await database.transact(self._storing(values), brief=True)
        if stored and (self.wants_title or self.chosen.context.cut):
            jobs.wake_workers()
        return stored

    def _follow_ups(self) -> Script[None]:
        """Ask for the jobs that come after a turn that has said something."""
        if self.wants_title:
            yield jobs.adding("chat.title", chat_id=str(self.message.chat_id))
        context = self.chosen.context
        if context.cut:
            # One at a time: of turns that end at once, each would pay for the same one.
            yield jobs.adding(
                "chat.summary",
                unique_key=f"chat.summary:{self.message.chat_id}",
                message_id=str(self.message.id),
                room=context.room,
            )

    def _storing(self, values: dict[str, Any]) -> Script[bool]:
        message = self.message
        # By attempt, not by status: where the lease ran out while we still wrote, the
        # reply was called interrupted, and the truth may replace that.
        stored = yield _END(row=message.id, of_attempt=self.reply.attempt, **values)
        if stored.rowcount == 0:
            return False
        if self.reply.text:
            yield from self._follow_ups()
        return True


_ENDS = (
    "model", "status", "content", "citations", "stop_reason", "error", "usage",
    "credits", "billed", "lease_expires_at",
)  # fmt: skip
_END = Statement(
    update(Message.__table__)  # type: ignore[arg-type]  # a mapped class's Table
    .where(Message.id == bindparam("row"), Message.attempt == bindparam("of_attempt"))
    .values({name: bindparam(name) for name in _ENDS})
)


def start_frame(message: Message, *, offset: int, position: Position) -> bytes:
    """The first event: whose reply follows, and from which character of its text."""
    return sse.frame(
        "message_start",
        {
            "message_id": message.id,
            "user_message_id": message.parent_id,
            "chat_id": message.chat_id,
            "model": message.model,
            "offset": offset,
        },
        str(position),
    )


def ending(message: Message) -> Callable[[str], bytes]:
    """The last events of a stored reply."""

    def frames(event_id: str) -> bytes:
        usage = {**(message.usage or {}), "credits": message.credits}
        used = sse.frame("usage", usage, event_id.removesuffix(".end"))
        if message.status == "error":
            return used + sse.frame("error", {"problem": message.error}, event_id)
        told = b'{"message":%b}' % message_json(message)
        return used + sse.raw_frame("message_stop", told, event_id)

    return frames


def _broken_off(failure: AppError | None) -> Callable[[str], bytes]:
    problem = failure.problem() if failure else {}
    return lambda event_id: sse.frame("error", {"problem": problem}, event_id)
