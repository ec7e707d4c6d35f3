"""Replies seen from other processes than the one that writes them.

The writer appends each event to the reply's log on the bus; another process replays the
log into a copy of the reply, and its clients follow the copy as if the turn ran there.
Its own clients see an event when the log has it, too: what anybody has seen is there
though the process dies.
Entries are numbered: where one is missing, the copy is abandoned, and its followers go
on by reading the database, which is slower but misses nothing.
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict
from functools import partial
from typing import Any
from uuid import UUID

import orjson

from app.core.bus import Bus
from app.integrations.llm.base import (
    Citation,
    ProviderEvent,
    RedactedThinking,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
)
from app.models import Message
from app.services.chat.reply import Reply

_KINDS: dict[str, Any] = {
    "text": TextDelta,
    "thinking": ThinkingDelta,
    "redacted": RedactedThinking,
    "tool": ToolUseStart,
    "input": ToolInputDelta,
    "citation": Citation,
}
_NAMES = {kind: name for name, kind in _KINDS.items()}
_AFTER_ALL = 2**53


def _channel(message_id: UUID, attempt: int) -> str:
    return f"reply:{message_id}:{attempt}"


class Writer:
    """Tells the bus of one attempt at a reply, and the reply what the bus has."""

    def __init__(self, bus: Bus, message_id: UUID, reply: Reply) -> None:
        self._bus = bus
        self._reply = reply
        reply.hold_back()
        self._channel = _channel(message_id, reply.attempt)
        self._next = 0
        begin = {"content": reply.content, "citations": reply.citations}
        self._append("begin", begin)

    def tell(self, event: ProviderEvent) -> None:
        name = _NAMES.get(type(event))
        if name is not None:
            show = partial(self._reply.show, self._reply.recorded)
            self._append(name, asdict(event), done=show)

    def end(self) -> None:
        """Only once the reply's end is stored: readers go to the database for it."""
        self._append("end", {}, last=True)

    def _append(self, name: str, fields: dict[str, Any], **how: Any) -> None:
        entry = orjson.dumps([self._next, name, fields])
        self._next += 1
        self._bus.append(self._channel, entry, **how)


class _Copy:
    """A reply as far as its log tells; without a reply until that has begun."""

    def __init__(self, attempt: int) -> None:
        self._attempt = attempt
        self._known = 0
        self.reply: Reply | None = None

    def hear(self, entry: bytes) -> None:
        number, name, fields = orjson.loads(entry)
        if number < self._known:
            return  # read before, in the log
        if number > self._known or (self.reply is None) != (name == "begin"):
            self.abandon()
            return
        self._known += 1
        if name == "begin":
            content, citations = fields["content"], fields["citations"]
            self.reply = Reply(content, citations, attempt=self._attempt)
        elif name == "end":
            self.abandon()
        elif self.reply is not None:
            self.reply.apply(_KINDS[name](**fields))

    def abandon(self) -> None:
        if self.reply is not None:
            self.reply.abandon()


class Reader:
    """Copies of replies that other processes write."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._copies: set[_Copy] = set()
        bus.on_gap(self._abandon_all)

    @asynccontextmanager
    async def copy(self, message: Message) -> AsyncGenerator[Reply | None]:
        """The growing copy; None where there is no log.

        It is abandoned when an entry is lost, and when the end is stored: either way
        the database tells the rest.
        """
        copy, channel = _Copy(message.attempt), _channel(message.id, message.attempt)
        await self._bus.listen(channel, copy.hear)
        self._copies.add(copy)
        try:
            for entry in await self._bus.recall(channel):
                copy.hear(entry)
            yield copy.reply
        finally:
            self._copies.discard(copy)
            await self._bus.unlisten(channel, copy.hear)

    def _abandon_all(self) -> None:
        for copy in self._copies:
            copy.abandon()


def end_for(bus: Bus, message: Message) -> None:
    """Tell the end of a reply whose writer died, once that is stored.

    Its number is higher than any: readers go to the database whatever they know.
    """
    entry = orjson.dumps([_AFTER_ALL, "end", {}])
    bus.append(_channel(message.id, message.attempt), entry, last=True)


async def recovered(bus: Bus, message: Message) -> Reply | None:
    """What the log holds of a reply whose writer died: often more than was saved."""
    copy = _Copy(message.attempt)
    for entry in await bus.recall(_channel(message.id, message.attempt)):
        copy.hear(entry)
    return copy.reply
