"""The port every model provider stands behind.

A provider turns one `ChatRequest` into a stream of `ProviderEvent`s. The stream of a
good answer holds any number of deltas, tool calls and citations, at least one `Usage`
(the last one counts), and exactly one `Stop`, last. A stream that cannot end so raises
a `ProviderError`; it never just ends. Nothing but a `Usage` comes before the first
token, so that until then a call can be made again (see `routing`).
"""

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, ClassVar, Literal, Protocol

from app.core.exceptions import AppError

Block = dict[str, Any]
"""A content block in the shape of the Anthropic Messages API, e.g. {"type": "text",
"text": "..."}."""

Tool = dict[str, Any]
"""A tool that a model may call, in the same shape: name, description, input_schema."""

ToolChoice = dict[str, Any]
"""Which tool a model calls, in the same shape: {"type": "auto"} (as it likes, which is
the default), "any" (some tool), "none", or {"type": "tool", "name": "..."}. All but
"none" may add `"disable_parallel_tool_use": True`: no more than one call."""

Thinking = dict[str, Any]
"""How much a model thinks before it answers, in the same shape: {"type": "enabled",
"budget_tokens": 2048}, {"type": "adaptive"} (as it likes) or {"type": "disabled"}.
"adaptive" may add an `"effort"`: "low", "medium", "high", "xhigh" or "max"."""

OutputFormat = dict[str, Any]
"""What an answer's text must be: {"type": "json"}, some JSON object; or {"type":
"json_schema", "name": "...", "schema": {...}}, JSON that the schema describes."""

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Literal["user", "assistant"]
    content: Sequence[Block]


@dataclass(frozen=True, slots=True)
class Source:
    """A text that an answer may quote: a document, or a passage of one.

    It stands in the document from character `start` on, which is on `page`, counted
    from 1; `pages` are the characters of the document at which its pages begin. Either
    may be unknown. `id` is the document's. `lead` is what a passage cannot be read
    without: the head of the table that it is of.
    """

    name: str
    text: str
    start: int = 0
    page: int | None = None
    pages: Sequence[int] = ()
    id: str | None = None
    lead: str = ""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One call of a model; `model` is the provider's own id, without our prefix.

    A last message of role assistant is a text that the model is to go on with. None
    leaves a choice to the provider. What a provider has no means for it refuses with a
    ProviderRejectedError that names it. For who quotes instead of reading, there are
    the `sources`, which stand in the messages or in `system` already, and the bare
    `question`, where the last message may hold more.
    """

    model: str
    messages: Sequence[ChatMessage]
    system: str = ""
    max_tokens: int = 4096
    tools: Sequence[Tool] = ()
    tool_choice: ToolChoice | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: Sequence[str] = ()
    thinking: Thinking | None = None
    output_format: OutputFormat | None = None
    sources: Sequence[Source] = ()
    question: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    text: str


@dataclass(frozen=True, slots=True)
class ThinkingDelta:
    """A piece of the model's reasoning; `signature` closes a thinking block."""

    text: str
    signature: str = ""


@dataclass(frozen=True, slots=True)
class RedactedThinking:
    """A whole block of reasoning that only the provider can read."""

    data: str


@dataclass(frozen=True, slots=True)
class ToolUseStart:
    """The model begins to call a tool; `input` is what comes of its JSON with that."""

    id: str
    name: str
    input: str = ""


@dataclass(frozen=True, slots=True)
class ToolInputDelta:
    """The next piece of the JSON that the last `ToolUseStart` calls its tool with."""

    json: str


@dataclass(frozen=True, slots=True)
class Citation:
    """A quoted span: `quote` equals `source`'s text from `start` to `end` (chars).

    `page` counts from 1; `source_id` is the `Source`'s. Either may be unknown.
    """

    source: str
    quote: str
    start: int
    end: int
    page: int | None = None
    source_id: str | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of the whole answer so far, as the provider bills them.

    `estimated` marks figures of ours, where the provider sent none. `thinking_tokens`
    are part of the output, and 0 where the provider does not tell them by themselves.
    """

    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = False
    thinking_tokens: int = 0

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_read_tokens=self.cache_read_tokens + other.cache_read_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
            estimated=self.estimated or other.estimated,
            thinking_tokens=self.thinking_tokens + other.thinking_tokens,
        )

    def as_dict(self) -> dict[str, int]:
        """As messages keep it: what is billed. `asdict` takes twenty times as long."""
        return {name: getattr(self, name) for name in _BILLED}


_BILLED = [name for name in Usage.__slots__ if name != "thinking_tokens"]


@dataclass(frozen=True, slots=True)
class Stop:
    """The answer's end; `sequence` is the stop sequence that ended it, where told."""

    reason: StopReason
    sequence: str | None = None


ProviderEvent = (
    TextDelta
    | ThinkingDelta
    | RedactedThinking
    | ToolUseStart
    | ToolInputDelta
    | Citation
    | Usage
    | Stop
)


def is_answer(event: ProviderEvent) -> bool:
    """Whether an answer has begun; a `Usage` before the first token is an estimate."""
    return type(event) is not Usage


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars for a million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal = Decimal(0)
    cache_write: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model on offer; `name` is `provider/id`.

    Prices are None where nobody told us; such a model costs no credits. `dimensions` is
    how long the vectors are that a model for embeddings makes, unless asked otherwise.
    """

    name: str
    context_window: int
    max_output_tokens: int
    capabilities: frozenset[str]
    prices: Prices | None = None
    dimensions: int | None = None

    @property
    def provider(self) -> str:
        return self.name.partition("/")[0]

    @property
    def id(self) -> str:
        return self.name.partition("/")[2]


class Provider(Protocol):
    """One family of models: the part of a model's name before the slash."""

    name: str

    @property
    def missing(self) -> str | None:
        """What to set to make it usable, as a sentence; None when it is configured."""

    async def models(self) -> list[ModelInfo]:
        """The models on offer now; empty while `missing`. Cached by the provider."""

    def stream(self, request: ChatRequest) -> AsyncIterator[ProviderEvent]:
        """Run one call. Closing the iterator ends the call at the provider."""

    async def close(self) -> None: ...


class ProviderError(AppError):
    """A call that failed at the provider, classified by type, never by status.

    `retryable` says whether the same call may go through later; `retry_after` is how
    many seconds the provider asks to be left alone before. `reason` is in its own
    words, where it gave any: they may name its host or account.
    """

    status, code, title = 502, "provider_error", "The model's provider failed"
    retryable: ClassVar[bool] = False

    def __init__(
        self, detail: str, *, retry_after: float | None = None, reason: str = ""
    ) -> None:
        told = (
            {} if retry_after is None else {"Retry-After": f"{math.ceil(retry_after)}"}
        )
        super().__init__(detail, headers=told)
        self.retry_after = retry_after
        self.reason = reason


def joined(events: Iterable[ProviderEvent]) -> Iterator[ProviderEvent]:
    """The same events, with texts that follow each other as one.

    For what came in one read: each event costs its way to the client and to the log.
    What came before an error is given before that is raised.
    """
    texts: list[str] = []
    try:
        for event in events:
            if type(event) is TextDelta:
                texts.append(event.text)
                continue
            if texts:
                yield TextDelta("".join(texts))
                texts.clear()
            yield event
    except ProviderError:
        if texts:
            yield TextDelta("".join(texts))
        raise
    if texts:
        yield TextDelta("".join(texts))


class ProviderNotConfiguredError(ProviderError):
    status, code = 503, "provider_not_configured"
    title = "The model's provider is not configured"


class ProviderUnavailableError(ProviderError):
    """It cannot be reached, or says that it is overloaded or broken."""

    status, code = 503, "provider_unavailable"
    retryable = True


class ProviderThrottledError(ProviderError):
    """It refuses for the rate of calls: before the answer or in its middle."""

    status, code = 503, "provider_throttled"
    retryable = True


class ProviderTimeoutError(ProviderError):
    """No byte came for the allowed time."""

    status, code = 504, "provider_timeout"
    retryable = True


class ProviderRejectedError(ProviderError):
    """It does not take this call: too long, malformed, a model it does not have."""

    status, code = 400, "provider_rejected"


class ProviderAuthError(ProviderError):
    """It does not take our credentials: a matter for the installation's admin."""

    code = "provider_auth_failed"


class ProviderStreamBrokenError(ProviderError):
    """The answer broke off: a cut connection, a damaged frame, no proper end."""

    code = "provider_stream_broken"
    retryable = True
