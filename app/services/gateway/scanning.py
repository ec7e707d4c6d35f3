"""Follows an answer that goes through as it came: what it used, and how it ends.

Of a stream, only the few events that tell this are looked into; they are found by how
their bytes look, which no text inside of them can have, since its quotes are escaped.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, ClassVar

import orjson

from app.integrations.llm import messages_api, openai_chunks, openai_errors
from app.integrations.llm.base import (
    ProviderError,
    ProviderStreamBrokenError,
    Usage,
)
from app.integrations.llm.tokens import TokenTally

_END = re.compile(rb"\r?\n\r?\n")
_LINE = re.compile(rb"^data: *(.*)$", re.MULTILINE)
_MOST_EVENT = 16 * 2**20
_MOST_KEPT = 2**20
"""Bytes of an answer that are kept for the log and for an estimate."""

Json = dict[str, Any]


class Scan(ABC):
    """Of one answer, in one wire format.

    `begun` tells whether the first token has come; `ended` whether the answer is
    complete. `kept` is how many bytes are kept for its text. `usage` is what the
    provider has told so far, and `failure` what it has told of a failure, after which
    nothing more counts.
    """

    special: ClassVar[re.Pattern[bytes]]
    """In each event that must be looked into."""
    token: ClassVar[re.Pattern[bytes]]
    """In the first event that has something of the answer."""

    def __init__(self, who: str) -> None:
        self._who = who
        self._rest = b""
        self._kept: list[bytes] = []
        self.kept = 0
        self._whole: Json | None = None
        self.begun = False
        self.ended = False
        self.usage: Usage | None = None
        self.failure: ProviderError | None = None

    def feed(self, part: bytes) -> bytes:
        """The events that these bytes complete, as they go to the client."""
        data = self._rest + part if self._rest else part
        end = data.rfind(b"\n\n") + 2
        if end == 1 or b"\r" in data:
            end = max((m.end() for m in _END.finditer(data)), default=0)
        events, self._rest = data[:end], data[end:]
        if len(self._rest) > _MOST_EVENT:
            self.failure = ProviderStreamBrokenError("An event is too long.")
        if not self.special.search(events):
            return self._passed(events)
        passed: list[bytes] = []
        try:
            passed.extend(map(self._looked_into, _split(events)))
        except ProviderError as error:
            self.failure = error
        return b"".join(passed)

    def close(self) -> None:
        """Tell the end of the input; `failure` says whether it was no proper one."""
        if not self.ended and self.failure is None:
            self.failure = ProviderStreamBrokenError(f"{self._who} broke off.")

    def feed_whole(self, body: bytes) -> bytes:
        """An answer that is not streamed; raises where it is none."""
        try:
            answer = orjson.loads(body)
            self._read_whole(answer)
        except ProviderError as error:
            self.failure = error
            raise
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProviderStreamBrokenError(
                f"{self._who} sent an answer that we cannot read."
            ) from error
        self._whole = answer
        self.begun = self.ended = True
        self.kept = len(body)
        return body

    def written(self) -> int:
        """Tokens of what has come, estimated."""
        tally = TokenTally()
        for text in self._texts():
            tally.add(text)
        return tally.tokens

    def text(self) -> str:
        """What the answer says, as far as it is kept."""
        return "".join(self._texts())

    def _passed(self, events: bytes) -> bytes:
        if not self.begun and self.token.search(events):
            self.begun = True
        if self.kept < _MOST_KEPT:
            self._kept.append(events)
            self.kept += len(events)
        return events

    def _looked_into(self, event: bytes) -> bytes:
        if not self.special.search(event):
            return self._passed(event)
        data = _data(event)
        try:
            keep = self._read(data)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProviderStreamBrokenError(
                f"{self._who} sent an event that we cannot read."
            ) from error
        return self._passed(event) if keep else b""

    def _texts(self) -> Iterable[str]:
        if self._whole is not None:
            return self._said_whole(self._whole)
        return self._said_so_far()

    def _said_so_far(self) -> Iterator[str]:
        for event in _parsed(b"".join(self._kept)):
            try:
                yield from self._said(event)
            except (KeyError, TypeError, AttributeError):
                continue  # it was passed on as it is, and says nothing to us

    @abstractmethod
    def _read(self, data: bytes) -> bool:
        """Look into an event; whether the client gets it."""

    @abstractmethod
    def _read_whole(self, answer: Json) -> None: ...

    @abstractmethod
    def _said(self, event: Json) -> Iterator[str]: ...

    @abstractmethod
    def _said_whole(self, answer: Json) -> list[str]: ...


class ChatCompletionsScan(Scan):
    """`usage` that the client has not asked for is taken out again."""

    special = re.compile(
        rb'"usage"\s*:\s*\{|"error"\s*:|"object"\s*:\s*"error"|\[DONE\]'
    )
    token = re.compile(
        rb'"(?:content|reasoning\w*|refusal)"\s*:\s*"[^"]|"tool_calls"\s*:\s*\['
    )

    def __init__(self, who: str, *, include_usage: bool) -> None:
        super().__init__(who)
        self._include_usage = include_usage

    def _read(self, data: bytes) -> bool:
        if data == b"[DONE]":
            self.ended = True
            return True
        chunk = orjson.loads(data)
        if chunk.get("error") or chunk.get("object") == "error":
            raise openai_errors.error_of(self._who, chunk)
        if told := chunk.get("usage"):
            self.usage = openai_chunks.usage_of(told) or self.usage
            return self._include_usage or bool(chunk.get("choices"))
        return True

    def _read_whole(self, answer: Json) -> None:
        if answer.get("error"):
            raise openai_errors.error_of(self._who, answer)
        _ = answer["choices"][0]["message"]
        self.usage = openai_chunks.usage_of(answer.get("usage") or {})

    def _said(self, event: Json) -> Iterator[str]:
        for choice in event.get("choices") or ():
            yield from _of_message(choice.get("delta") or {})

    def _said_whole(self, answer: Json) -> list[str]:
        messages = (choice["message"] for choice in answer["choices"])
        return [text for message in messages for text in _of_message(message)]


def _of_message(message: Mapping[str, Any]) -> list[str]:
    told = map(message.get, ("reasoning_content", "reasoning", "content", "refusal"))
    texts = [text for text in told if isinstance(text, str)]
    for call in message.get("tool_calls") or ():
        function = call.get("function") or {}
        texts += (function.get("name") or "", function.get("arguments") or "")
    return texts


class MessagesScan(Scan):
    special = re.compile(
        rb'"type"\s*:\s*"(?:message_start|message_delta|message_stop|error)"'
    )
    token = re.compile(rb'"type"\s*:\s*"content_block_delta"')

    def __init__(self, who: str) -> None:
        super().__init__(who)
        self._told: dict[str, int] = {}

    def _read(self, data: bytes) -> bool:
        event = orjson.loads(data)
        match event["type"]:
            case "message_start":
                self._take(event["message"].get("usage"))
            case "message_delta":
                self._take(event.get("usage"))
            case "message_stop":
                self.ended = True
            case "error":
                raise messages_api.error_of(self._who, event["error"])
        return True

    def _read_whole(self, answer: Json) -> None:
        if answer["type"] == "error":
            raise messages_api.error_of(self._who, answer["error"])
        _ = answer["content"]
        self._take(answer.get("usage"))

    def _take(self, usage: Mapping[str, Any] | None) -> None:
        self._told |= messages_api.told(usage)
        self.usage = messages_api.usage_of(self._told) or self.usage

    def _said(self, event: Json) -> Iterator[str]:
        if event["type"] == "content_block_start":
            yield event["content_block"].get("name", "")
        elif event["type"] == "content_block_delta":
            delta = event["delta"]
            for name in ("text", "thinking", "partial_json"):
                yield delta.get(name, "")

    def _said_whole(self, answer: Json) -> list[str]:
        texts: list[str] = []
        for block in answer["content"]:
            texts += (block.get(name, "") for name in ("text", "thinking", "name"))
            if given := block.get("input"):
                texts.append(orjson.dumps(given).decode())
        return texts


def _split(events: bytes) -> Iterator[bytes]:
    """Whole events, each with the blank line that ends it."""
    start = 0
    for match in _END.finditer(events):
        yield events[start : match.end()]
        start = match.end()


def _parsed(events: bytes) -> Iterator[Any]:
    """What is JSON of them: all at once where each has one line, as all servers do."""
    lines = [line for line in _LINE.findall(events) if not line.startswith(b"[DONE]")]
    try:
        yield from orjson.loads(b"[%b]" % b",".join(lines))
    except ValueError:
        for event in _split(events):
            with suppress(ValueError):
                yield orjson.loads(_data(event))


def _data(event: bytes) -> bytes:
    """What its `data` lines hold."""
    lines = (line for line in event.splitlines() if line.startswith(b"data:"))
    return b"\n".join(line[5:].strip() for line in lines)
