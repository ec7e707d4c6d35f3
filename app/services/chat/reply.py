"""One reply as it grows: its content, and the events that tell of it.

The id of an event is a position in the reply: how much of it a client holds that has
seen the event. So any process can tell what a returning client still lacks from the
stored message alone; a log of events is only a faster way to the same answer.

Positions count the characters of a block. In a `tool_use` block its head (id and name)
counts as one, and then the JSON of its input does, which is therefore kept as the text
that came (`input_json`): parsed and written again, it might have another length. A
block of redacted thinking has no characters and no events.
"""

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

import orjson

from app.core import sse
from app.core.exceptions import AppError, BadRequestError
from app.core.wakeup import Wakeup
from app.integrations.llm.base import (
    Block,
    Citation,
    ProviderEvent,
    RedactedThinking,
    Stop,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)

_POSITION = re.compile(r"(\d{1,9})\.(\d{1,9})\.(\d{1,9})\.(\d{1,9})(\.end)?")
_TEXT_KEYS = {"text": "text", "thinking": "thinking", "tool_use": "input_json"}
_DELTA = b'event: delta\nid: %d.%d.%d.%d\ndata: {"text":%b}\n\n'
_EVENT_NAMES = {"text": "delta", "thinking": "thinking", "tool_use": "tool_use"}
_HEAD = 1  # of a tool_use block, in characters


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


class _Event:
    """A piece of the reply from `start` to `end`, and its frame.

    `block` is the one it belongs to; None for a citation.
    """

    __slots__ = ("block", "end", "frame", "payload", "start")

    def __init__(
        self,
        block: Block | None,
        start: Position,
        end: Position,
        payload: str,
        frame: bytes,
    ) -> None:
        self.block = block
        self.start = start
        self.end = end
        self.payload = payload
        self.frame = frame

    def after(self, position: Position) -> bytes:
        """The frame of what a client at `position` lacks of this event, if anything."""
        if self.block is None:
            return self.frame if self.end.citations > position.citations else b""
        held = (position.block, position.offset)
        if (self.start.block, self.start.offset) >= held:
            return self.frame
        if (self.end.block, self.end.offset) <= held:
            return b""
        rest = self.payload[position.offset - self.start.offset :]
        return _frame(self.block, rest, self.end)


def _frame(block: Block, text: str, end: Position) -> bytes:
    kind = block["type"]
    if kind == "text":
        return _DELTA % (*end[:4], orjson.dumps(text))
    if kind == "tool_use":
        data = {"id": block["id"], "name": block["name"], "input_delta": text}
    else:
        data = {"text": text}
    return sse.frame(_EVENT_NAMES[kind], data, str(end))


class Follower(Wakeup):
    """One reader of a reply. `close` ends it from outside, with a last event."""

    def __init__(self) -> None:
        super().__init__()
        self.closed_by: AppError | None = None
        self.held = Position()
        """How far it has read."""

    def close(self, error: AppError) -> None:
        self.closed_by = error
        self.wake()


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
        self._shown: int | None = None
        """How many of the events followers may see, where they must wait for others."""
        self._last_frames = b""
        self._followers: set[Follower] = set()
        for block in content:
            text_key = _TEXT_KEYS.get(block["type"], "")
            self._open_block({k: v for k, v in block.items() if k != text_key})
            self._grow(block.get(text_key, ""))
        for citation in citations:
            self._cite(citation)
        self.resumed_from = self._position
        """Where this attempt began."""

    @property
    def content(self) -> list[Block]:
        """The blocks as they are stored."""
        return [
            {**block, _TEXT_KEYS[block["type"]]: "".join(parts)}
            if block["type"] in _TEXT_KEYS
            else dict(block)
            for block, parts in self._blocks
        ]

    @property
    def text(self) -> str:
        return "".join(
            "".join(parts) for block, parts in self._blocks if block["type"] == "text"
        )

    @property
    def written(self) -> str:
        """All that a provider counts as output: text, thinking, input of tools."""
        return "".join(["".join(parts) for _, parts in self._blocks])

    @property
    def position(self) -> Position:
        return self._position

    def apply(self, event: ProviderEvent) -> None:
        match event:
            case TextDelta():
                self._append("text", event.text)
            case ThinkingDelta(text=text, signature=signature):
                self._think(text, signature)
            case ToolUseStart():
                self._open_block(
                    {"type": "tool_use", "id": event.id, "name": event.name}
                )
                self._grow(event.input)
            case ToolInputDelta(json=json):
                self._grow(json)
            case RedactedThinking(data=data):
                self._open_block({"type": "redacted_thinking", "data": data})
            case Citation():
                self._cite(asdict(event))
            case Usage():
                self.usage = event
            case Stop():
                self.stop = event
        if self._shown is None:
            self._wake_all()

    @property
    def recorded(self) -> int:
        """How many events there are."""
        return len(self._events)

    def hold_back(self) -> None:
        """Have followers see no event after those that are there, until `show`."""
        self._shown = self.recorded

    def show(self, count: int) -> None:
        """Have them see the first so many events; after the end they see all."""
        if self._shown is not None and count > self._shown:
            self._shown = count
            self._wake_all()

    def missed(self, position: Position) -> bytes:
        """The frames of what is shown and a client at `position` does not hold."""
        return b"".join([e.after(position) for e in self._events[: self._shown]])

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
        self._shown = None
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
            events = self._events
            known = len(events) if self._shown is None else self._shown
            if missed := self.missed(follower.held):
                follower.held = max(follower.held, events[known - 1].end)
                yield missed
            while follower.closed_by is None and not self.abandoned:
                if fresh := events[known : self._shown]:
                    known += len(fresh)
                    if follower.held == fresh[0].start:
                        frames = b"".join([e.frame for e in fresh])
                    else:  # a client may be ahead of a copy
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
            follower.leave()

    def _append(self, kind: str, text: str) -> None:
        if not self._blocks or self._blocks[-1][0]["type"] != kind:
            self._open_block({"type": kind})
        self._grow(text)

    def _think(self, text: str, signature: str) -> None:
        """A signature closes its block: what comes after it is another one."""
        closed = bool(self._blocks) and "signature" in self._blocks[-1][0]
        if closed and (text or signature):
            self._open_block({"type": "thinking"})
        self._append("thinking", text)
        if signature:
            self._blocks[-1][0]["signature"] = signature

    def _open_block(self, block: Block) -> None:
        self._blocks.append((block, []))
        start = self._position
        self._position = start._replace(block=len(self._blocks) - 1, offset=0)
        if block["type"] == "tool_use":
            end = self._position._replace(offset=_HEAD)
            self._record(_Event(block, self._position, end, "", _frame(block, "", end)))

    def _grow(self, text: str) -> None:
        if text:
            block, parts = self._blocks[-1]
            parts.append(text)
            start = self._position
            attempt, index, offset, citations, _ = start
            place = (attempt, index, offset + len(text), citations)
            end = Position(*place)
            if block["type"] == "text":  # nearly all of them, and each costs CPU
                frame = _DELTA % (*place, orjson.dumps(text))
            else:
                frame = _frame(block, text, end)
            self._events.append(_Event(block, start, end, text, frame))
            self._position = end

    def _cite(self, citation: dict[str, Any]) -> None:
        self.citations.append(citation)
        start = self._position
        end = start._replace(citations=len(self.citations))
        frame = sse.frame("citation", citation, str(end))
        self._record(_Event(None, start, end, "", frame))

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


def continuable(content: Sequence[Block]) -> list[Block]:
    """What of a broken-off reply a continuation goes on from.

    Not the calls of tools at its end: no model goes on inside of one, it calls anew.
    """
    kept = list(content)
    while kept and kept[-1]["type"] == "tool_use":
        kept.pop()
    return kept
