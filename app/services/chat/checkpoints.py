"""Saving what running turns have written, and ending those that must not go on.

One transaction a second saves all that run. A turn's lease is renewed with it; where a
lease ran out, nobody writes any more, and the reply is called interrupted. A turn whose
user has lost the project that it leans on is stopped.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import bindparam, select, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.bus import Bus
from app.core.config import TurnSettings
from app.core.database import Database, changed_rows, utcnow
from app.core.exceptions import AppError, NotFoundError
from app.core.statements import Script, Statement
from app.integrations.llm.base import Usage
from app.models import Chat, Message
from app.services.authorization import members_of
from app.services.chat import search
from app.services.chat.relay import end_for, recovered
from app.services.chat.turn import Turn
from app.services.credits.afterwards import charge
from app.services.credits.purse import Call

_log = structlog.get_logger()


class ProjectLostError(NotFoundError):
    code = "project_lost"

    def __init__(self) -> None:
        super().__init__(
            "The project that this reply leaned on is not there for you any more: "
            "what was written is kept."
        )


class Checkpoints:
    def __init__(
        self,
        settings: TurnSettings,
        *,
        database: Database,
        running: Mapping[UUID, Turn],
        bus: Bus,
    ) -> None:
        self._every = settings.checkpoint_seconds
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._database = database
        self._running = running
        self._bus = bus
        self._saver: asyncio.Task[None] | None = None

    async def open(self, *, everything: bool) -> None:
        """Interrupt the orphans (all that stream, or those without a lease); begin."""
        await self._interrupt_orphans(everything=everything)
        self._saver = asyncio.create_task(self._save_regularly())

    async def close(self) -> None:
        if self._saver is not None:
            self._saver.cancel()
            with suppress(asyncio.CancelledError):
                await self._saver

    async def _save_regularly(self) -> None:
        looked = utcnow()
        while True:
            await asyncio.sleep(self._every)
            try:
                await self._save()
                await self._stop_strangers()
                if utcnow() - looked > self._lease / 2:
                    looked = utcnow()
                    await self._interrupt_orphans(everything=False)
            except AppError as error:
                _log.warning("replies not saved", code=error.code)
            except SQLAlchemyError as error:  # of one reply; the others need the loop
                _log.error("replies not saved", exc_info=error)

    async def _save(self) -> None:
        """Store what grew since the last time, and renew the leases: in one go."""
        now = utcnow()
        due = [t for t in self._running.values() if self._wants_saving(t, now)]
        if not due:
            return
        rows = [_checkpoint(turn, now + self._lease) for turn in due]
        positions = [turn.reply.position for turn in due]
        await self._database.transact(_saving(rows))
        for turn, position in zip(due, positions, strict=True):
            turn.saved = (position, now)

    def _wants_saving(self, turn: Turn, now: datetime) -> bool:
        if turn.saved is None:
            return True
        position, at = turn.saved
        return position != turn.reply.position or now - at > self._lease / 3

    async def _stop_strangers(self) -> None:
        """End the turns that lean on a project whose member their user is no more.

        The database is asked: whoever was told of a removal might have missed it, or
        have begun a turn just then.
        """
        leaning = [(t, t.leans_on) for t in self._running.values() if t.leans_on]
        if not leaning:
            return
        projects, users = zip(*{pair for _, pair in leaning}, strict=True)
        async with self._database.unit_of_work(read_only=True) as session:
            rows = await session.execute(members_of(projects, users))
            members = {(row[0], row[1]) for row in rows}
        for turn, pair in leaning:
            if pair not in members:
                turn.end("stopped", ProjectLostError())

    async def _interrupt_orphans(self, *, everything: bool) -> None:
        """Call interrupted what no living process writes any more."""
        orphaned = select(Message).where(
            Message.status == "streaming", Message.id.not_in(list(self._running))
        )
        if not everything:
            orphaned = orphaned.where(Message.lease_expires_at < utcnow())
        async with self._database.unit_of_work(read_only=True) as session:
            found = (await session.scalars(orphaned)).all()
        for message in found:
            await self._interrupt(message)

    async def _interrupt(self, message: Message) -> None:
        told = await recovered(self._bus, message)
        more = {"content": told.content, "citations": told.citations} if told else {}
        async with self._database.unit_of_work() as session:
            ended = await session.execute(
                update(Message)
                .where(
                    Message.id == message.id,
                    Message.attempt == message.attempt,
                    Message.status == "streaming",
                    Message.lease_expires_at == message.lease_expires_at,
                )
                .values(status="interrupted", lease_expires_at=None, **more)
            )
            if changed_rows(ended):
                for name, value in more.items():
                    setattr(message, name, value)
                await search.index_messages(session, [message])
                await self._bill(session, message)
        end_for(self._bus, message)
        _log.warning("reply of a lost process", message_id=str(message.id))

    async def _bill(self, session: AsyncSession, message: Message) -> None:
        """Have the user pay what a lost process had used up by its last checkpoint."""
        owing = message.credits - message.billed
        user_id = await session.scalar(
            select(Chat.user_id).where(Chat.id == message.chat_id)
        )
        if owing <= 0 or user_id is None:
            return
        first = message.attempt == 0  # of later ones the tokens were told before
        used = Usage(**message.usage) if first and message.usage else Usage(0, 0)
        paid = await charge(
            session, user_id, owing, used, Call("chat", message.model or "")
        )
        settled = message.billed + paid
        await session.execute(
            update(Message)
            .where(Message.id == message.id)
            .values(credits=settled, billed=settled)
        )


def _saving(rows: Sequence[dict[str, Any]]) -> Script[None]:
    for row in rows:
        yield _SAVE(**row)


_SAVE = Statement(
    update(Message.__table__)  # type: ignore[arg-type]  # a mapped class's Table
    .where(
        Message.id == bindparam("row_id"),
        Message.attempt == bindparam("row_attempt"),
        # Once the turn has stored its end, a late checkpoint must not undo it.
        Message.status == "streaming",
    )
    .values(
        content=bindparam("content"),
        citations=bindparam("citations"),
        usage=bindparam("usage"),
        credits=bindparam("credits"),
        lease_expires_at=bindparam("lease_expires_at"),
    )
)


def _checkpoint(turn: Turn, lease_expires_at: datetime) -> dict[str, Any]:
    return {
        "row_id": turn.message.id,
        "row_attempt": turn.reply.attempt,
        "content": turn.reply.content,
        "citations": turn.reply.citations,
        "usage": turn.usage().as_dict(),
        "credits": turn.credits(),
        "lease_expires_at": lease_expires_at,
    }
