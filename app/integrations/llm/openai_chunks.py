"""Reads the chunks of an answer of OpenAI's chat completions API.

Reference: "Streaming events" of "Chat completions" in OpenAI's API documentation.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from app.integrations.llm.base import (
    ChatRequest,
    ProviderEvent,
    ProviderStreamBrokenError,
    Stop,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.integrations.llm.openai_errors import error_of
from app.integrations.llm.tokens import TokenTally, estimate_input

_DONE = b"[DONE]"

_LESSONS = 4
"""How often an answer's chunks may change their form; some differ all the time."""

_PROBE = "a text like no other"

_TELLING = ("reasoning_content", "reasoning", "refusal", "tool_calls")
"""What a chunk may tell besides its text."""

_STOP_REASONS: Mapping[str, StopReason] = {
    "stop": "end_turn",
    "length": "max_tokens",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}


class ChunkReader:
    """Reads the chunks of one answer."""

    def __init__(self, who: str, request: ChatRequest) -> None:
        self._who = who
        self._input = estimate_input(request)
        self._output = TokenTally()
        self._stops = request.stop_sequences
        self._sequence: str | None = None
        self._told = False
        self._calls: list[object] = []
        self._reason: StopReason | None = None
        self._alike = _Alike()
        self.stopped = False

    def usage_so_far(self) -> Usage:
        """Our estimate: most servers tell figures only at the end, some never."""
        return Usage(self._input, self._output.tokens, estimated=True)

    def read(self, datas: Sequence[bytes]) -> Iterator[ProviderEvent]:
        """The events of these, up to the end of the answer."""
        texts = self._alike.texts(datas)
        if text := "".join(texts):
            self._output.add(text)
            yield TextDelta(text)
        for data in datas[len(texts) :]:
            if data == _DONE:
                yield from self._stop()
                return
            yield from self._one(data)

    def _one(self, data: bytes) -> list[ProviderEvent]:
        try:
            chunk = orjson.loads(data)
            events = self._chunk(chunk)
            self._alike.learn(data, chunk)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProviderStreamBrokenError(
                f"{self._who} sent an event that we cannot read."
            ) from error
        return events

    def end(self) -> None:
        """Tell the end of the input; raises where the answer has not ended properly."""
        if not self.stopped:
            raise ProviderStreamBrokenError(f"{self._who} broke off its answer.")

    def _chunk(self, chunk: Mapping[str, Any]) -> list[ProviderEvent]:
        if chunk.get("error") or chunk.get("object") == "error":
            raise error_of(self._who, chunk)
        events: list[ProviderEvent] = []
        for choice in chunk.get("choices") or ():
            delta = choice.get("delta") or {}
            if thinking := delta.get("reasoning_content") or delta.get("reasoning"):
                self._output.add(thinking)
                events.append(ThinkingDelta(thinking))
            if text := delta.get("content") or delta.get("refusal"):
                self._output.add(text)
                events.append(TextDelta(text))
            for call in delta.get("tool_calls") or ():
                events += self._call(call)
            if reason := choice.get("finish_reason"):
                self._reason = _STOP_REASONS.get(reason, "end_turn")
                self._sequence = self._stopped_by(choice)
        if (told := chunk.get("usage")) and (usage := usage_of(told)):
            self._told = True
            events.append(usage)
        return events

    def _stopped_by(self, choice: Mapping[str, Any]) -> str | None:
        """The stop sequence that ended the answer: vLLM tells it, OpenAI does not."""
        sequence = choice.get("stop_reason")
        return sequence if sequence in self._stops else None

    def _call(self, call: Mapping[str, Any]) -> list[ProviderEvent]:
        """A piece of a call; its first one has the name. Some servers count none."""
        function = call["function"]
        arguments = function.get("arguments") or ""
        self._output.add(arguments)
        key = call.get("index", call.get("id"))
        if key not in self._calls:
            self._calls.append(key)
            self._output.add(function["name"])
            id_ = call.get("id") or f"call_{len(self._calls)}"
            return [ToolUseStart(id_, function["name"], arguments)]
        if key != self._calls[-1]:
            raise ProviderStreamBrokenError(f"{self._who} sent tool calls mixed up.")
        return [ToolInputDelta(arguments)] if arguments else []

    def _stop(self) -> list[ProviderEvent]:
        if self._reason is None:
            raise ProviderStreamBrokenError(f"{self._who} does not say why it stopped.")
        if self._calls and self._reason == "end_turn":
            self._reason = "tool_use"  # which some servers call `stop`
        elif self._sequence is not None:
            self._reason = "stop_sequence"
        self.stopped = True
        usage = [] if self._told else [self.usage_so_far()]
        return [*usage, Stop(self._reason, self._sequence)]


class _Alike:
    """Knows the chunks that differ only in their text, as nearly all of an answer do.

    To parse one costs more than all else that is done for it. Here what stands before
    and after the text is compared, and the text alone is parsed.
    """

    __slots__ = ("_after", "_before", "_lessons")

    def __init__(self) -> None:
        self._before = self._after = b""
        self._lessons = _LESSONS

    def texts(self, datas: Sequence[bytes]) -> list[str]:
        """Of the first of these: as many as are alike."""
        before, after = self._before, self._after
        texts: list[str] = []
        if not before:
            return texts
        begin, end = len(before), -len(after)
        for data in datas:
            if not (data.startswith(before) and data.endswith(after)):
                break
            try:
                text = orjson.loads(data[begin:end])
            except ValueError:
                break
            if type(text) is not str:
                break
            texts.append(text)
        return texts

    def learn(self, data: bytes, chunk: Mapping[str, Any]) -> None:
        """From a chunk that was not."""
        if not self._lessons or not (text := _text_alone(chunk)):
            return
        self._lessons -= 1
        before, spelled, after = data.partition(orjson.dumps(text))
        if not spelled:
            return
        # The first that is spelled so may be something else, such as a key.
        tried = orjson.loads(b"%b%b%b" % (before, orjson.dumps(_PROBE), after))
        if _text_alone(tried) == _PROBE:
            self._before, self._after = before, after


def _text_alone(chunk: Mapping[str, Any]) -> str | None:
    """The text of a chunk that tells nothing else."""
    choices = chunk.get("choices") or []
    if len(choices) != 1 or any(chunk.get(key) for key in ("error", "usage")):
        return None
    delta = choices[0].get("delta") or {}
    if choices[0].get("finish_reason") or any(delta.get(key) for key in _TELLING):
        return None
    text = delta.get("content")
    return text if isinstance(text, str) else None


def usage_of(usage: Mapping[str, Any]) -> Usage | None:
    """A server's figures, if it tells them; OpenAI's input includes cached tokens."""
    prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
    if prompt is None or output is None:
        return None
    details = usage.get("prompt_tokens_details") or {}
    read = details.get("cached_tokens") or 0
    written = details.get("cache_write_tokens") or 0
    thought = (usage.get("completion_tokens_details") or {}).get("reasoning_tokens")
    fresh = max(prompt - read - written, 0)
    return Usage(fresh, output, read, written, thinking_tokens=thought or 0)
