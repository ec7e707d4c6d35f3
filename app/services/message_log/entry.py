"""What is written of one call of a model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from uuid_utils.compat import uuid7

from app.core.database import utcnow

_MOST_TEXT = 256 * 2**10  # bytes
_OVERHEAD = 1024  # about what an entry takes besides its text, in bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """A call that ended. `kind` is chat, title, gateway, ...; `credits` as in prices.

    `messages` are what was asked in this very call, not all that led to it, and what
    was answered: JSON values in the shape of our messages.
    """

    user_id: UUID
    kind: str
    model: str
    status: str
    messages: Sequence[Mapping[str, Any]] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    credits: int = 0
    latency_ms: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """An entry as it waits to be stored: its text is taken now, and bounded."""

    entry: Entry
    text: bytes | None
    id: UUID = field(default_factory=uuid7)
    created_at: datetime = field(default_factory=utcnow)

    @property
    def size(self) -> int:
        return _OVERHEAD + len(self.text or b"")


def text_of(messages: Sequence[Mapping[str, Any]]) -> bytes | None:
    """The messages as JSON, the newest as far as there is room; None for none.

    Files count for much and tell little: of them their size alone is kept.
    """
    kept: list[bytes] = []
    room = _MOST_TEXT
    for message in reversed(messages):
        text = orjson.dumps(_without_files(message), default=str)
        room -= len(text)
        if room < 0:
            break
        kept.append(text)
    if left_out := len(messages) - len(kept):
        kept.append(orjson.dumps({"left_out": left_out}))
    return b"[" + b",".join(reversed(kept)) + b"]" if kept else None


def _without_files(value: Any) -> Any:
    match value:
        case {"type": "base64", "data": str(content)}:
            return {**value, "data": f"{len(content)} characters"}
        case str():
            return value
        case Mapping():
            return {name: _without_files(inner) for name, inner in value.items()}
        case Sequence():
            return [_without_files(inner) for inner in value]
        case _:
            return value
