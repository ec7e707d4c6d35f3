"""What is written of one call of a model."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

import orjson
import structlog
from uuid_utils import uuid7  # its own type is written as text at a tenth of the cost

from app.core.database import utcnow

_MOST_TEXT = 256 * 2**10  # bytes
_SHORT = 32 * 2**10  # bytes that are made text of in a moment
_OVERHEAD = 1024  # about what an entry takes besides its text, in bytes

_log = structlog.get_logger()

Messages = Sequence[Mapping[str, Any]]


class Entry(NamedTuple):
    """A call that ended. `kind` is chat, title, gateway, ...; `credits` as in prices.

    `messages` are what was asked in this very call, not all that led to it, and what
    was answered: JSON values in the shape of our messages. Or what gives them, once
    or again, and only if their text is kept: later, in a thread, where they are long,
    for `size` is about how many bytes it holds.
    """

    user_id: UUID
    kind: str
    model: str
    status: str
    messages: Messages | Callable[[], Messages] = ()
    input_tokens: int = 0
    output_tokens: int = 0
    credits: int = 0
    latency_ms: int = 0
    size: int = 0


class Waiting:
    """An entry as it waits to be stored; `size` is about what it takes, in bytes.

    `row` is what is stored, but for the text: that is here already, or given later.
    """

    __slots__ = ("_text", "row", "size")

    def __init__(self, entry: Entry, *, keeps_text: bool) -> None:
        self._text: bytes | Callable[[], Messages] | None = None
        self.size = _OVERHEAD
        messages = entry.messages
        if keeps_text and callable(messages) and entry.size > _SHORT:
            self._text = messages
            self.size += entry.size
        elif keeps_text:
            # At once: its objects would only wait to be collected.
            self._text = text = _text(messages)
            self.size += len(text or b"")
        self.row = {
            "id": uuid7(),
            "created_at": utcnow(),
            "user_id": entry.user_id,
            "kind": entry.kind[:32],
            "model": entry.model[:200],
            "input_tokens": entry.input_tokens,
            "output_tokens": entry.output_tokens,
            "credits": entry.credits,
            "latency_ms": entry.latency_ms,
            "status": entry.status[:16],
        }

    def text(self) -> bytes | None:
        """What was said, which may take its time."""
        text = self._text
        return _text(text) if callable(text) else text


def _text(messages: Messages | Callable[[], Messages]) -> bytes | None:
    try:
        return text_of(messages() if callable(messages) else messages)
    except Exception as error:  # noqa: BLE001 - a format's fault costs its text, and no entry
        # Its kind alone: what it says may hold what was asked.
        _log.error("message log without its text", error=type(error).__name__)
        return None


def text_of(messages: Messages) -> bytes | None:
    """The messages as JSON, the newest as far as there is room; None for none.

    Files count for much and tell little: of them their size alone is kept.
    """
    whole = orjson.dumps(messages, default=str)
    if len(whole) <= _MOST_TEXT and b'"base64"' not in whole:
        return whole if messages else None
    kept: list[bytes] = []
    room = _MOST_TEXT
    for message in reversed(messages):
        text = orjson.dumps(message, default=str)
        if b'"base64"' in text:
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
