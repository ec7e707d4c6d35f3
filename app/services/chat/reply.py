"""One reply as it grows: its content, and the events that tell of it.

The id of an event is a position in the reply: how much of it a client holds that has
seen the event. So any process can tell what a returning client still lacks from the
stored message alone; a log of events is only a faster way to the same answer.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from app.core import sse
from app.core.exceptions import AppError, BadRequestError
from app.integrations.llm.base import (
    Block,
    Citation,
    ProviderEvent,
    Stop,
    TextDelta,
    ThinkingDelta,
    Usage,
)

_POSITION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})(\.end)?")
_TEXT_KEYS = {"text": "text", "thinking": "thinking"}
_EVENT_NAMES = {"text": "delta", "thinking": "thinking"}


class Position(NamedTuple):
    """What a client holds of a reply, and so the id of an event.

    All blocks before `block`, `offset` characters of that one, and so many citations,
    as written in this `attempt`; `ended` where it saw the last event too.
    """

    attempt: int = 0
    block: int = 0
    offset: int = 0
    citations: int = 0
    ended: bool = False

    def __str__(self) -> str:
        end = ".end" if self.ended else ""
        return f"{self.attempt}.{self.block}.{self.offset}.{self.citations}{end}"

    def at_most(self, limit: "Position") -> "Position":
        """The same place, or `limit` where that comes first."""
        inside = (self.block, self.offset) <= (limit.block, limit.offset)
        place = self if inside else limit
        return place._replace(
            citations=min(self.citations, limit.citations), ended=False
        )

    @classmethod
    def parse(cls, event_id: str) -> "Position":
        match = _POSITION.fullmatch(event_id)
        if match is None:
            raise BadRequestError(
                "Last-Event-ID is none of this stream's: send the last `id` that you "
                "received, or leave the header out to get the whole reply."
            )
        attempt, block, offset, citations = (int(n) for n in match.groups()[:4])
        return cls(attempt, block, offset, citations, ended=match[5] is not None)


@dataclass(frozen=True, slots=True)
class _Event:
    """A piece of the reply from `start` to `end` (positions), and its frame."""

    kind: str
    start: Position
    end: Position
    payload: str
    frame: bytes

    def after(self, position: Position) -> bytes:
        """The frame of what a client at `position` lacks of this event, if anything."""
        if self.kind == "citation":
            return self.frame if self.end.citations > position.citations else b""
        held = (position.block, position.offset)
        if (self.start.block, self.start.offset) >= held:
            return self.frame
        if (self.end.block, self.end.offset) <= held:
            return b""
        rest = self.payload[position.offset - self.start.offset :]
        return sse.frame(_EVENT_NAMES[self.kind], {"text": rest}, str(self.end))


class Follower:
    """One reader of a reply. `close` ends it from outside, with a last event."""

    def __init__(self) -> None:
        self._wake = asyncio.Event()
        self.closed_by: AppError | None = None
        self.held = Position()
        """How far it has read."""

    def wake(self) -> None:
        self._wake.set()

    def close(self, error: AppError) -> None:
        self.closed_by = error
        self._wake.set()

    async def wait(self, seconds: float) -> bool:
        """Wait to be woken; False when `seconds` went by first."""
        try:
            async with asyncio.timeout(seconds):
                await self._wake.wait()
        except TimeoutError:
            return False
        self._wake.clear()
        return True


class Reply:
    """Grows by `apply`, ends by `finish`; any number of followers read along.

    Followers hold no queue: each reads the one list of events at its own pace, so a
    slow client costs no memory and gets what it missed joined into one write.
    """

    def __init__(
        self,
        content: Sequence[Block] = (),
        citations: Sequence[dict[str, Any]] = (),
        *,
        attempt: int = 0,
    ) -> None:
        self.attempt = attempt
        self.usage: Usage | None = None
        self.stop: Stop | None = None
        self.ended = False
        self.abandoned = False
        self.citations: list[dict[str, Any]] = []
        self._blocks: list[tuple[Block, list[str]]] = []
        self._position = Position(attempt)
        self._events: list[_Event] = []
        self._last_frames = b""
        self._followers: set[Follower] = set()
        for block in content:
            self._open_block(block["type"], **_without_text(block))
            self._grow(block["type"], block.get(_TEXT_KEYS[block["type"]], ""))
        for citation in citations:
            self._cite(citation)
        self.resumed_from = self._position
        """Where this attempt began."""

    @property
    def content(self) -> list[Block]:
        """The blocks as they are stored."""
        return [
            {**block, _TEXT_KEYS[block["type"]]: "".join(parts)}
            for block, parts in self._blocks
        ]

    @property
    def text(self) -> str:
        return "".join(
            "".join(parts) for block, parts in self._blocks if block["type"] == "text"
        )

    @property
    def position(self) -> Position:
        return self._position

    def apply(self, event: ProviderEvent) -> None:
        match event:
            case TextDelta(text=text):
                self._append("text", text)
            case ThinkingDelta(text=text, signature=signature):
                self._append("thinking", text)
                if signature:
                    self._blocks[-1][0]["signature"] = signature
            case Citation():
                self._cite(asdict(event))
            case Usage():
                self.usage = event
            case Stop():
                self.stop = event
        self._wake_all()

    def missed(self, position: Position) -> bytes:
        """The frames of what is there and a client at `position` does not hold."""
        return b"".join([e.after(position) for e in self._events])

    def lacks(self, position: Position) -> bool:
        """Whether a client at `position`, of this attempt, holds more than there is."""
        same = position.attempt == self.attempt
        return same and position.at_most(self.position) != position._replace(
            ended=False
        )

    def text_before(self, position: Position) -> int:
        """How many characters of text stand before `position`."""
        return sum(
            min(length, position.offset) if index == position.block else length
            for index, (kind, length) in enumerate(self._lengths())
            if kind == "text" and index <= position.block
        )

    def finish(self, frames: Callable[[str], bytes]) -> None:
        """End the reply; `frames(event id)` gives the last events' bytes."""
        self._last_frames = frames(str(self._position._replace(ended=True)))
        self.ended = True
        self._wake_all()

    def abandon(self) -> None:
        """Leave the followers where they are: this copy gets no more."""
        self.abandoned = True
        self._wake_all()

    async def follow(
        self, position: Position | None, follower: Follower, *, keepalive: float
    ) -> AsyncGenerator[bytes]:
        """Give the frames after `position`, as they come, until the reply's end."""
        self._followers.add(follower)
        follower.held = position or Position(self.attempt)
        try:
            known = len(self._events)
            if missed := self.missed(follower.held):
                follower.held = max(follower.held, self._position)
                yield missed
            while follower.closed_by is None and not self.abandoned:
                if known < len(self._events):
                    fresh = self._events[known:]
                    known += len(fresh)
                    # Not the bare frames: a client may be ahead of a copy.
                    frames = b"".join([e.after(follower.held) for e in fresh])
                    if frames:
                        follower.held = fresh[-1].end
                        yield frames
                elif self.ended:
                    yield self._last_frames
                    return
                elif not await follower.wait(keepalive):
                    yield sse.KEEPALIVE
            if follower.closed_by is not None:
                yield error_frame(follower.closed_by, str(follower.held))
        finally:
            self._followers.discard(follower)

    def _append(self, kind: str, text: str) -> None:
        if not self._blocks or self._blocks[-1][0]["type"] != kind:
            self._open_block(kind)
        self._grow(kind, text)

    def _open_block(self, kind: str, **rest: Any) -> None:
        self._blocks.append(({"type": kind, **rest}, []))
        self._position = self._position._replace(block=len(self._blocks) - 1, offset=0)

    def _grow(self, kind: str, text: str) -> None:
        if text:
            self._blocks[-1][1].append(text)
            start = self._position
            end = start._replace(offset=start.offset + len(text))
            frame = sse.frame(_EVENT_NAMES[kind], {"text": text}, str(end))
            self._record(_Event(kind, start, end, text, frame))

    def _cite(self, citation: dict[str, Any]) -> None:
        self.citations.append(citation)
        start = self._position
        end = start._replace(citations=len(self.citations))
        frame = sse.frame("citation", citation, str(end))
        self._record(_Event("citation", start, end, "", frame))

    def _record(self, event: _Event) -> None:
        self._events.append(event)
        self._position = event.end

    def _lengths(self) -> list[tuple[str, int]]:
        return [(b["type"], sum(map(len, parts))) for b, parts in self._blocks]

    def _wake_all(self) -> None:
        for follower in self._followers:
            follower.wake()


def error_frame(error: AppError, event_id: str) -> bytes:
    return sse.frame("error", {"problem": error.problem()}, event_id)


def _without_text(block: Block) -> dict[str, Any]:
    return {k: v for k, v in block.items() if k not in {"type", "text", "thinking"}}
