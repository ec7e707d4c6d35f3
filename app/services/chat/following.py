"""Reading along: the events of a reply, from wherever a client stands."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, asynccontextmanager, suppress
from uuid import UUID

from sqlalchemy import select

from app.core.bus import Bus
from app.core.config import TurnSettings
from app.core.database import Database
from app.core.exceptions import AppError, BadRequestError, UnavailableError
from app.models import Message
from app.services.authorization import Principal, require
from app.services.chat.relay import Reader
from app.services.chat.reply import Follower, Position, Reply, error_frame
from app.services.chat.turn import Turn, ending, start_frame
from app.services.principal import Principals


class Following:
    def __init__(
        self,
        settings: TurnSettings,
        *,
        database: Database,
        principals: Principals,
        running: Mapping[UUID, Turn],
        bus: Bus,
    ) -> None:
        self._settings = settings
        self._database = database
        self._principals = principals
        self._running = running
        self._reader = Reader(bus)

    def new_events(self, principal: Principal, turn: Turn) -> AsyncGenerator[bytes]:
        """The events of a turn that the caller has just started."""
        begin = turn.reply.resumed_from
        first = _start(turn.message, turn.reply, begin)
        return self._read(principal, turn.reply, begin, first)

    async def follow(
        self, principal: Principal, message_id: UUID, last_event_id: str | None
    ) -> AsyncGenerator[bytes] | None:
        """The events of a reply after `last_event_id`; None where it has seen all."""
        position = Position.parse(last_event_id) if last_event_id else None
        turn = self._running.get(message_id)
        message = await self._message(principal, message_id)
        if message.role != "assistant":
            raise BadRequestError("Only a reply has a stream; this is a user's.")
        if turn is not None:
            held, first = _entry(turn.message, turn.reply, position)
            return self._read(principal, turn.reply, held, first)
        if message.status == "streaming":
            return self._remote_events(principal, message, position)
        if position and position.ended:
            return None
        return self._stored_events(principal, message, position)

    async def _read(
        self,
        principal: Principal,
        reply: Reply,
        held: Position,
        first: bytes,
        follower: Follower | None = None,
    ) -> AsyncGenerator[bytes]:
        """`first`, then the events after `held`, until the reply's or session's end."""
        follower = follower or Follower()
        with self._principals.following(principal, follower):
            if first:
                yield first
            events = reply.follow(
                held, follower, keepalive=self._settings.keepalive_seconds
            )
            async with aclosing(events):
                async for frames in events:
                    yield frames

    async def _remote_events(
        self, principal: Principal, message: Message, position: Position | None
    ) -> AsyncGenerator[bytes]:
        """Read along with another process, by its log as long as there is one."""
        async with self._reader.copy(message) as reply:
            if reply is not None:
                follower = Follower()
                held, first = _entry(message, reply, position, growing=True)
                events = self._read(principal, reply, held, first, follower)
                async with aclosing(events), self._watched(message, reply):
                    async for frames in events:
                        yield frames
                if follower.closed_by is not None:
                    return
                position = follower.held
        events = self._stored_events(principal, message, position)
        async with aclosing(events):
            async for frames in events:
                yield frames

    async def _stored_events(
        self, principal: Principal, message: Message, position: Position | None
    ) -> AsyncGenerator[bytes]:
        """Read the reply from the database, again and again while others write it."""
        follower = Follower()
        with self._principals.following(principal, follower):
            while True:
                try:
                    if follower.closed_by is not None:
                        raise follower.closed_by
                    message = await self._message(principal, message.id)
                except AppError as error:
                    yield error_frame(error, str(position or Position()))
                    return
                reply = _stored_reply(message)
                ended = message.status != "streaming"
                held, first = _entry(message, reply, position, growing=not ended)
                if frames := first + reply.missed(held):
                    yield frames
                position = held if reply.lacks(held) else reply.position
                if ended:
                    yield ending(message)(str(position._replace(ended=True)))
                    return
                await follower.wait(self._settings.checkpoint_seconds)

    @asynccontextmanager
    async def _watched(self, message: Message, copy: Reply) -> AsyncIterator[None]:
        """Abandon the copy when the database says that nobody writes any more."""

        async def watch() -> None:
            status: str | None = "streaming"
            while status == "streaming":
                await asyncio.sleep(2 * self._settings.checkpoint_seconds)
                with suppress(UnavailableError):
                    status = await self._status(message)
            copy.abandon()

        watcher = asyncio.create_task(watch())
        try:
            yield
        finally:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher

    async def _status(self, message: Message) -> str | None:
        """None for a message that is gone, or that another attempt writes."""
        async with self._database.unit_of_work(read_only=True) as session:
            return await session.scalar(
                select(Message.status).where(
                    Message.id == message.id, Message.attempt == message.attempt
                )
            )

    async def _message(self, principal: Principal, message_id: UUID) -> Message:
        async with self._database.unit_of_work(read_only=True) as session:
            return await require(session, principal, Message, message_id)


def _stored_reply(message: Message) -> Reply:
    reply = Reply(message.content, message.citations, attempt=message.attempt)
    reply.resumed_from = Position.parse(message.resumed_from or str(Position()))
    return reply


def _entry(
    message: Message,
    reply: Reply,
    position: Position | None,
    *,
    growing: bool = False,
) -> tuple[Position, bytes]:
    """Where a client goes on that is at `position`, and the first frame for it.

    A crash may have taken what it holds, and another attempt have gone on without
    that: then it is told where to cut. Not of a reply that is `growing`: what it lacks
    there has only not arrived yet.
    """
    if position is not None and position.attempt == reply.attempt:
        if growing or not reply.lacks(position):
            return position._replace(ended=False), b""
        held = position.at_most(reply.position)
    elif position is not None and position.attempt == reply.attempt - 1:
        held = position.at_most(reply.resumed_from)._replace(attempt=reply.attempt)
    else:  # it holds nothing, or it is not known where the attempt after its own began
        held = Position(reply.attempt)
    return held, _start(message, reply, held)


def _start(message: Message, reply: Reply, position: Position) -> bytes:
    return start_frame(message, offset=reply.text_before(position), position=position)
