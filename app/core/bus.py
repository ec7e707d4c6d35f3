"""What the processes of one installation tell each other.

Two things: messages to whoever listens now, and short-lived logs that a latecomer can
read from the start. Neither is an authority: the database is, and whatever is lost here
(Redis may be gone at any time) is found there a little later. So saying never waits and
never fails; `reliable` tells whether anything may have been missed just now.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import structlog

from app.core.config import RedisSettings

if TYPE_CHECKING:
    from redis.asyncio import Redis
    from redis.asyncio.client import PubSub

Handler = Callable[[bytes], None]
Done = Callable[[], None]

_PREFIX = "workroom:"
_LOG_SECONDS = 3600  # how long a log is kept after its last entry
_LOG_ENDED_SECONDS = 60
_TIMEOUT = 2.0  # seconds
_MOST_WAITING = 10_000  # messages; beyond that the oldest are dropped
_log = structlog.get_logger()


class Bus(Protocol):
    """Handlers run in the event loop, in every process, the speaker's own included."""

    shared: bool
    """Whether there are other processes at all."""

    @property
    def reliable(self) -> bool:
        """Whether all that others say is heard now."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def listen(self, channel: str, handler: Handler) -> None:
        """Have `handler` called with each message from about now on."""

    async def unlisten(self, channel: str, handler: Handler) -> None:
        """No more of that; a handler that does not listen is left alone."""

    def on_gap(self, callback: Callable[[], None]) -> None:
        """Have `callback` called when messages may have been missed."""

    def say(self, channel: str, message: bytes) -> None: ...

    def append(
        self,
        channel: str,
        entry: bytes,
        *,
        last: bool = False,
        done: Done | None = None,
    ) -> None:
        """Say it, and keep it in the channel's log.

        `done` is called once it is there, and also once it is known not to get there.
        """

    async def recall(self, channel: str) -> list[bytes]:
        """The channel's log from its first entry; empty where there is none."""


class LocalBus:
    """For the one process of an embedded installation."""

    shared = False

    def __init__(self) -> None:
        self._handlers: defaultdict[str, list[Handler]] = defaultdict(list)
        self._logs: defaultdict[str, list[bytes]] = defaultdict(list)

    @property
    def reliable(self) -> bool:
        return True

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def listen(self, channel: str, handler: Handler) -> None:
        self._handlers[channel].append(handler)

    async def unlisten(self, channel: str, handler: Handler) -> None:
        _remove(self._handlers, channel, handler)

    def on_gap(self, callback: Callable[[], None]) -> None:
        """There are no gaps between a process and itself."""

    def say(self, channel: str, message: bytes) -> None:
        for handler in tuple(self._handlers.get(channel, ())):
            handler(message)

    def append(
        self,
        channel: str,
        entry: bytes,
        *,
        last: bool = False,
        done: Done | None = None,
    ) -> None:
        self._logs[channel].append(entry)
        self.say(channel, entry)
        if done is not None:
            done()
        if last:
            # Who was there has heard it; who comes later asks the database.
            del self._logs[channel]

    async def recall(self, channel: str) -> list[bytes]:
        return list(self._logs.get(channel, ()))


class _Letter(NamedTuple):
    channel: str
    message: bytes
    keep: int | None = None
    """For how many seconds it stays in the channel's log, if it goes there."""
    done: Done | None = None


class RedisBus:
    """Over Redis: publish and subscribe, and a stream for each log.

    One connection listens; one writer sends whatever has come up since its last round
    in a single round trip, so that a flood of small messages costs few of these.
    """

    shared = True

    def __init__(self, settings: RedisSettings) -> None:
        assert settings.url is not None
        self._url = settings.url.get_secret_value()
        self._handlers: defaultdict[str, list[Handler]] = defaultdict(list)
        self._gap_callbacks: list[Callable[[], None]] = []
        self._outbox: list[_Letter] = []
        self._waiting = asyncio.Event()
        self._connected = asyncio.Event()
        self._client: Redis | None = None
        self._pubsub: PubSub | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def reliable(self) -> bool:
        return self._connected.is_set()

    async def open(self) -> None:
        """Connect if Redis is there; where it is not, go on trying."""
        from redis.asyncio import Redis  # noqa: PLC0415 - only where it is configured

        self._client = Redis.from_url(
            self._url, socket_timeout=_TIMEOUT, socket_connect_timeout=_TIMEOUT
        )
        self._tasks = [
            asyncio.create_task(self._hear()),
            asyncio.create_task(self._write()),
        ]
        with suppress(TimeoutError):
            async with asyncio.timeout(_TIMEOUT):
                await self._connected.wait()

    async def close(self) -> None:
        if self._client is None:
            return
        with suppress(TimeoutError, *_errors()):
            async with asyncio.timeout(_TIMEOUT):
                await self._flush()
        client, self._client = self._client, None
        for task in self._tasks:
            while not task.done():
                # Again and again: the library may take a cancellation for a time-out.
                task.cancel()
                await asyncio.wait([task], timeout=_TIMEOUT / 10)
        await client.aclose()

    async def listen(self, channel: str, handler: Handler) -> None:
        self._handlers[channel].append(handler)
        if self._pubsub is not None and len(self._handlers[channel]) == 1:
            with suppress(*_errors()):
                await self._pubsub.subscribe(_PREFIX + channel)

    async def unlisten(self, channel: str, handler: Handler) -> None:
        _remove(self._handlers, channel, handler)
        if channel not in self._handlers and self._pubsub is not None:
            with suppress(*_errors()):
                await self._pubsub.unsubscribe(_PREFIX + channel)

    def on_gap(self, callback: Callable[[], None]) -> None:
        self._gap_callbacks.append(callback)

    def say(self, channel: str, message: bytes) -> None:
        self._post(_Letter(channel, message))

    def append(
        self,
        channel: str,
        entry: bytes,
        *,
        last: bool = False,
        done: Done | None = None,
    ) -> None:
        keep = _LOG_ENDED_SECONDS if last else _LOG_SECONDS
        self._post(_Letter(channel, entry, keep, done))

    async def recall(self, channel: str) -> list[bytes]:
        if self._client is None or not self.reliable:
            return []
        try:
            entries: Any = await self._client.xrange(_PREFIX + channel)
        except _errors():
            return []
        return [fields[b"e"] for _, fields in entries]

    def _post(self, letter: "_Letter") -> None:
        if len(self._outbox) < _MOST_WAITING:
            self._outbox.append(letter)
        elif letter.done is not None:
            letter.done()
        self._waiting.set()

    async def _write(self) -> None:
        while True:
            await self._waiting.wait()
            self._waiting.clear()
            try:
                await self._flush()
            except _errors() as error:
                _log.warning("redis does not take messages", error=str(error))
                await asyncio.sleep(0.2)

    async def _flush(self) -> None:
        if not self._outbox or self._client is None:
            return
        batch, self._outbox = self._outbox, []
        pipeline = self._client.pipeline(transaction=False)
        kept: dict[str, int] = {}
        for letter in batch:
            key = _PREFIX + letter.channel
            if letter.keep is not None:
                pipeline.xadd(key, {"e": letter.message})
                kept[key] = letter.keep
            pipeline.publish(key, letter.message)
        for key, seconds in kept.items():
            pipeline.expire(key, seconds)
        try:
            await pipeline.execute()
        finally:
            for letter in batch:
                if letter.done is not None:
                    letter.done()

    async def _hear(self) -> None:
        while self._client is not None:
            try:
                await self._hear_until_lost()
            except _errors() as error:
                if self.reliable:
                    _log.warning("redis is lost", error=str(error))
            self._connected.clear()
            self._pubsub = None
            for callback in self._gap_callbacks:
                callback()
            await asyncio.sleep(0.2)

    async def _hear_until_lost(self) -> None:
        assert self._client is not None
        async with self._client.pubsub(ignore_subscribe_messages=True) as pubsub:
            # The first one is for ourselves: without any, there is nothing to wait on.
            await pubsub.subscribe(_PREFIX, *(_PREFIX + c for c in self._handlers))
            await pubsub.ping()
            self._pubsub = pubsub
            self._connected.set()
            while self._client is not None:
                message = await pubsub.get_message(timeout=_TIMEOUT / 2)
                if message is None:
                    await pubsub.ping()  # fails where the other end is gone
                elif message["type"] == "message":
                    self._deliver(message)

    def _deliver(self, message: dict[str, Any]) -> None:
        channel = message["channel"].decode().removeprefix(_PREFIX)
        for handler in tuple(self._handlers.get(channel, ())):
            handler(message["data"])


def connect(settings: RedisSettings) -> Bus:
    """The bus of these settings; it is not open yet."""
    return LocalBus() if settings.url is None else RedisBus(settings)


def _remove(handlers: dict[str, list[Handler]], channel: str, handler: Handler) -> None:
    rest = [h for h in handlers.get(channel, ()) if h != handler]
    if rest:
        handlers[channel] = rest
    else:
        handlers.pop(channel, None)


def _errors() -> tuple[type[Exception], ...]:
    from redis.exceptions import RedisError  # noqa: PLC0415 - see RedisBus.open

    return (RedisError, OSError)
