"""Anthropic's Messages API: request bodies, and stream events turned into ours.

Only the format, no transport: Bedrock sends these events inside AWS event-stream
frames, Anthropic itself as server-sent events. Reference: "Streaming messages" and
"Errors" in Anthropic's API documentation.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import orjson

from app.integrations.llm.base import (
    Block,
    ChatMessage,
    ChatRequest,
    Citation,
    ProviderAuthError,
    ProviderError,
    ProviderEvent,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    RedactedThinking,
    Stop,
    StopReason,
    TextDelta,
    Thinking,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.integrations.llm.http import by_status, refused
from app.integrations.llm.tokens import TokenTally, estimate_input

GO_ON = (
    "Your last message was cut off. Go on exactly where its text ended, in the middle "
    "of a word if that is where it ended. Repeat nothing of it, add no remark: your "
    "answer is put directly behind it."
)

JSON_ALONE = (
    "Answer with one JSON object and nothing else: no words before or after it, and no "
    "Markdown around it."
)

_ERRORS: Mapping[str, type[ProviderError]] = {
    "overloaded_error": ProviderUnavailableError,
    "api_error": ProviderUnavailableError,
    "rate_limit_error": ProviderThrottledError,
    "timeout_error": ProviderTimeoutError,
    "invalid_request_error": ProviderRejectedError,
    "request_too_large": ProviderRejectedError,
    "not_found_error": ProviderRejectedError,
    "authentication_error": ProviderAuthError,
    "permission_error": ProviderAuthError,
    "billing_error": ProviderAuthError,
}

_EFFORTS = ((4096, "low"), (8192, "medium"))

_STOP_REASONS: Mapping[str, StopReason] = {
    "end_turn": "end_turn",
    "max_tokens": "max_tokens",
    "stop_sequence": "stop_sequence",
    "tool_use": "tool_use",
    "refusal": "refusal",
    # The next two leave an answer that can be continued, as max_tokens does.
    "pause_turn": "max_tokens",
    "model_context_window_exceeded": "max_tokens",
}


_UNCOUNTED = {
    "max_tokens", "metadata", "service_tier", "stop_sequences", "stream", "temperature",
    "top_k", "top_p",
}  # fmt: skip
"""Fields of a call that its count does not take."""


def countable(body: Mapping[str, Any]) -> dict[str, Any]:
    """Of the body of a call, what "Count tokens in a Message" takes."""
    return {name: told for name, told in body.items() if name not in _UNCOUNTED}


def continued(
    messages: Sequence[ChatMessage], *, prefill: bool
) -> tuple[Sequence[ChatMessage], str]:
    """How to make a model go on with a last assistant message.

    A model that takes a prefill goes on with that message itself; its text must not
    end in white space, so that is cut off and returned, for the model will mostly say
    it again. Other models refuse a last assistant message (Claude: all since 4.6);
    they are asked to go on by one more user message. No model takes blank text, or
    thinking that was cut off before its signature: such blocks are left out.
    """
    if not messages or messages[-1].role != "assistant":
        return messages, ""
    *before, last = messages
    content = [block for block in last.content if not _unfit(block)]
    if not content:
        return before, ""
    if not prefill:
        ask: Block = {"type": "text", "text": GO_ON}
        go_on = ChatMessage("user", [ask])
        return [*before, ChatMessage("assistant", content), go_on], ""
    text = content[-1].get("text", "")
    kept = text.rstrip()
    if kept != text:
        content[-1] = {**content[-1], "text": kept}
    return [*before, ChatMessage("assistant", content)], text[len(kept) :]


def _unfit(block: Block) -> bool:
    match block.get("type"):
        case "text":
            return not block["text"].strip()
        case "thinking":
            return not block.get("signature")
    return False


def message_body(
    request: ChatRequest, *, capabilities: Collection[str]
) -> tuple[dict[str, Any], str]:
    """The body of a call, without model and version; and what `continued` cut off.

    Which of the sampling parameters a model takes, and which beside thinking, differs
    from model to model: what it does not take, its refusal names.
    """
    prefill = "prefill" in capabilities
    messages, cut = continued(request.messages, prefill=prefill)
    body: dict[str, Any] = {
        "max_tokens": request.max_tokens,
        "messages": [{"role": m.role, "content": list(m.content)} for m in messages],
    }
    if system := _system(request):
        body["system"] = system
    optional = {
        "tools": list(request.tools) or None,
        "tool_choice": request.tool_choice,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_sequences": list(request.stop_sequences) or None,
        **_output(request, by_budget=prefill),
    }
    body |= {name: value for name, value in optional.items() if value is not None}
    if "prompt_caching" in capabilities:
        _mark(body)
    return body, cut


def _system(request: ChatRequest) -> list[Block]:
    """Claude has a form for JSON of a schema, but none for just any JSON."""
    wanted = request.output_format or {}
    said = [request.system, JSON_ALONE if wanted.get("type") == "json" else ""]
    return [{"type": "text", "text": text} for text in said if text]


def _output(request: ChatRequest, *, by_budget: bool) -> dict[str, Any]:
    """How much the model thinks, and what schema its answer fits.

    A budget is for models up to Claude 4.5, the same that take a prefill; later ones
    think as much as they like, at an effort. Reference: "Thinking", "Effort" and
    "Structured outputs" in Anthropic's documentation.
    """
    thinking, config = dict(request.thinking or {}), dict[str, Any]()
    if thinking.get("type") == "enabled" and not by_budget:
        effort = effort_of(thinking)
        thinking = {"type": "adaptive"}
    else:
        effort = thinking.pop("effort", None)
    if effort:
        config["effort"] = effort
    wanted = request.output_format or {}
    if wanted.get("type") == "json_schema":
        config["format"] = {"type": "json_schema", "schema": wanted["schema"]}
    return {"thinking": thinking or None, "output_config": config or None}


def effort_of(thinking: Thinking) -> str | None:
    """Thinking as "low", "medium" or "high", for those who take no other measure.

    None leaves it to the model. The borders are between the budgets that people choose.
    """
    if thinking["type"] == "adaptive":
        effort: str | None = thinking.get("effort")
        return "high" if effort in {"xhigh", "max"} else effort
    budget = thinking["budget_tokens"]
    return next((name for most, name in _EFFORTS if budget < most), "high")


def _mark(body: dict[str, Any]) -> None:
    """Say up to where the next turn will send the same again, so that it is cached.

    A prompt is cached in the order of tools, system, messages. The last block of the
    last but one message of the user's ends what no later turn changes; without the
    marks, all up to there is the same bytes in the next turn's body.
    """
    for blocks in (body.get("system") or body.get("tools"), _stable_end(body)):
        if blocks:
            blocks[-1] = {**blocks[-1], "cache_control": {"type": "ephemeral"}}


def _stable_end(body: Mapping[str, Any]) -> list[Block] | None:
    users: list[list[Block]] = [
        message["content"] for message in body["messages"] if message["role"] == "user"
    ]
    return users[-2] if users[1:] else None


class MessagesReader:
    """Reads the events of one answer; every event gives at most one of ours.

    `repeated` is white space that the answer may begin with although the reader of
    the joined text has it already.

    Of citations, only those by character are passed on: those by page or block say
    not where their quote stands in the text. Of tools, only those that the request
    brought: the provider's own it runs itself.
    """

    def __init__(self, who: str, request: ChatRequest, *, repeated: str = "") -> None:
        self._who = who
        self._request = request
        self._repeated = repeated
        self._told: dict[str, int] = {}
        self._output = TokenTally()
        self._reason: StopReason | None = None
        self._sequence: str | None = None
        self.stopped = False
        self._calling = False

    def read(self, events: Iterable[Mapping[str, Any]]) -> Iterator[ProviderEvent]:
        """Ours of theirs, up to the end of the answer."""
        for event in events:
            if (read := self._one(event)) is not None:
                yield read
            if self.stopped:
                return

    def _one(self, event: Mapping[str, Any]) -> ProviderEvent | None:
        try:
            return self._read(event)
        except (KeyError, TypeError, AttributeError) as error:
            raise ProviderStreamBrokenError(
                f"{self._who} sent an event of a shape that we do not know."
            ) from error

    def end(self) -> None:
        """Tell the end of the input; raises where the answer has not ended properly."""
        if not self.stopped:
            raise ProviderStreamBrokenError(f"{self._who} broke off its answer.")

    def _read(self, event: Mapping[str, Any]) -> ProviderEvent | None:
        match event["type"]:
            case "content_block_delta":
                return self._delta(event["delta"])
            case "message_start":
                return self._usage(event["message"].get("usage"))
            case "content_block_start":
                return self._start(event["content_block"])
            case "message_delta":
                reason = event["delta"].get("stop_reason")
                if reason is not None:
                    self._reason = _STOP_REASONS.get(reason, "end_turn")
                    self._sequence = event["delta"].get("stop_sequence")
                return self._usage(event.get("usage"))
            case "message_stop":
                return self._stop()
            case "error":
                raise error_of(self._who, event["error"])
        return None  # ping, content_block_stop, and what Anthropic may add

    def _start(self, block: Mapping[str, Any]) -> ProviderEvent | None:
        self._calling = block["type"] == "tool_use"
        match block["type"]:
            case "text":
                return self._text(block.get("text", ""))
            case "redacted_thinking":
                return RedactedThinking(block["data"])
            case "tool_use":
                given = orjson.dumps(block["input"]).decode() if block["input"] else ""
                self._output.add(block["name"] + given)
                return ToolUseStart(block["id"], block["name"], given)
        return None

    def _delta(self, delta: Mapping[str, Any]) -> ProviderEvent | None:
        match delta["type"]:
            case "text_delta":
                return self._text(delta["text"])
            case "thinking_delta":
                thinking = delta["thinking"]
                self._output.add(thinking)
                return ThinkingDelta(thinking) if thinking else None
            case "signature_delta":
                return ThinkingDelta("", delta["signature"])
            case "input_json_delta" if self._calling:
                json = delta["partial_json"]
                self._output.add(json)
                return ToolInputDelta(json) if json else None
            case "citations_delta":
                return _citation(delta["citation"])
        return None

    def _text(self, text: str) -> TextDelta | None:
        while self._repeated and text:
            if text[0] != self._repeated[0]:
                self._repeated = ""
            else:
                text, self._repeated = text[1:], self._repeated[1:]
        self._output.add(text)
        return TextDelta(text) if text else None

    def _usage(self, usage: Mapping[str, int | None] | None) -> Usage:
        """Figures of the whole answer so far; later ones replace earlier ones."""
        self._told |= told(usage)
        if (known := usage_of(self._told)) is not None:
            return known
        return Usage(
            input_tokens=self._told.get("input_tokens", estimate_input(self._request)),
            output_tokens=self._told.get("output_tokens", self._output.tokens),
            cache_read_tokens=self._told.get("cache_read_input_tokens", 0),
            cache_write_tokens=self._told.get("cache_creation_input_tokens", 0),
            estimated=True,
        )

    def _stop(self) -> Stop:
        if self._reason is None:
            raise ProviderStreamBrokenError(f"{self._who} does not say why it stopped.")
        self.stopped = True
        return Stop(self._reason, self._sequence)


def told(usage: Mapping[str, Any] | None) -> dict[str, int]:
    """The figures of an event; later ones replace earlier ones."""
    if not usage:
        return {}
    figures = {**usage, **(usage.get("output_tokens_details") or {})}
    return {k: v for k, v in figures.items() if isinstance(v, int)}


def usage_of(told: Mapping[str, int]) -> Usage | None:
    """None where not all that is billed has been told."""
    if "input_tokens" not in told or "output_tokens" not in told:
        return None
    return Usage(
        input_tokens=told["input_tokens"],
        output_tokens=told["output_tokens"],
        cache_read_tokens=told.get("cache_read_input_tokens", 0),
        cache_write_tokens=told.get("cache_creation_input_tokens", 0),
        thinking_tokens=told.get("thinking_tokens", 0),
    )


def error_of(who: str, error: Mapping[str, Any]) -> ProviderError:
    """What an event of type `error` tells."""
    kind = _ERRORS.get(error["type"], ProviderUnavailableError)
    return refused(kind, who, error["type"], error.get("message", ""))


def refusal(
    who: str, status: int, body: bytes, wait: float | None = None
) -> ProviderError:
    """The error of a call that was not taken: by its type, else by the status."""
    try:
        error = orjson.loads(body)["error"]
        name, words = str(error["type"]), str(error.get("message", ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        name, words = f"status {status}", ""
    return refused(_ERRORS.get(name) or by_status(status), who, name, words, wait=wait)


def _citation(citation: Mapping[str, Any]) -> Citation | None:
    if citation["type"] != "char_location":
        return None
    return Citation(
        source=citation.get("document_title")
        or f"document {citation['document_index'] + 1}",
        quote=citation["cited_text"],
        start=citation["start_char_index"],
        end=citation["end_char_index"],
    )
