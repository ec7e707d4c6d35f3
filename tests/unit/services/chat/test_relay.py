"""TRUST F1: with Redis nobody sees what a dying process would take along."""

import asyncio
from contextlib import suppress
from uuid import UUID

from app.core.bus import Done, LocalBus
from app.core.sse import KEEPALIVE
from app.integrations.llm.base import TextDelta
from app.services.chat.relay import Writer
from app.services.chat.reply import Follower, Position, Reply

END = b"event: message_stop\nid: end\ndata: {}\n\n"


class SlowBus(LocalBus):
    """Has what it is given once `take` is called."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.given: list[Done] = []

    def append(
        self,
        channel: str,
        entry: bytes,
        *,
        last: bool = False,
        done: Done | None = None,
    ) -> None:
        super().append(channel, entry, last=last)
        if done is not None:
            self.given.append(done)

    def take(self, count: int) -> None:
        for _ in range(count):
            self.given.pop(0)()


class Watcher:
    """A client of the process that writes."""

    def __init__(self, reply: Reply, position: Position | None = None) -> None:
        self.seen = b""
        self._frames = reply.follow(position, Follower(), keepalive=0.01)

    async def look(self) -> bytes:
        """All that there is to see now."""
        with suppress(StopAsyncIteration):
            while (frames := await anext(self._frames)) != KEEPALIVE:
                self.seen += frames
        return self.seen


def written(bus: SlowBus, *words: str) -> Reply:
    reply = Reply([{"type": "text", "text": "Before. "}], attempt=1)
    writer = Writer(bus, UUID(int=1), reply)
    for word in words:
        reply.apply(TextDelta(word))
        writer.tell(TextDelta(word))
    return reply


async def test_followers_see_what_the_bus_has_and_no_more() -> None:
    bus = SlowBus()
    reply = written(bus, "one ", "two ", "three ")
    watcher = Watcher(reply)

    assert b"Before." in await watcher.look()  # that is in the database
    assert b"one" not in watcher.seen
    bus.take(2)
    assert b"two" in await watcher.look()
    assert b"three" not in watcher.seen
    bus.take(1)
    assert b"three" in await watcher.look()


async def test_who_comes_or_returns_meanwhile_sees_no_more_either() -> None:
    bus = SlowBus()
    reply = written(bus, "one ", "two ")
    bus.take(1)
    end_of_one = Position(1, 0, len("Before. one "))

    newcomer, returning = Watcher(reply), Watcher(reply, end_of_one)
    for watcher in (newcomer, returning):
        assert b"two" not in await watcher.look()
    bus.take(1)

    assert (await newcomer.look()).count(b"one") == 1
    assert b"two" in newcomer.seen
    assert b"two" in await returning.look()
    assert b"one" not in returning.seen


async def test_the_end_is_stored_so_all_before_it_is_shown() -> None:
    bus = SlowBus()
    reply = written(bus, "one ", "two ")
    watcher = Watcher(reply)
    await watcher.look()

    reply.finish(lambda _: END)

    assert (await watcher.look()).endswith(END)
    assert b"two" in watcher.seen
    bus.take(2)  # late, it changes nothing
    await asyncio.sleep(0)
    assert await watcher.look() == watcher.seen
