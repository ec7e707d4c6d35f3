"""Anthropic's Messages API, as the fakes of Anthropic and Bedrock speak it.

The events of an answer, the mistakes that are refused, and the answer as server-sent
events.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from app.integrations.llm.messages_api import GO_ON
from tests.fakes.faults import FaultPlan
from tests.fakes.model_server import (
    Script,
    alternating,
    cut_at,
    reply_pieces,
    text_of,
    whole,
)

SIGNATURE = "c2lnbmVk"
MOST_MARKS = 4
"""So many `cache_control` marks a request may have."""

_TAKES_PREFILL = re.compile(r"claude-(3|(opus|sonnet|haiku)-4-(1|5|2025))")

Event = dict[str, Any]


def _usage(plan: FaultPlan, output: int) -> Event:
    figures = {
        "input_tokens": plan.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": output,
    }
    return {"usage": figures} if plan.tells_usage else {}


def start_events(plan: FaultPlan, model: str = "claude-fake") -> list[Event]:
    message: Event = {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": model,
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        **_usage(plan, 1),
    }
    events: list[Event] = [
        {"type": "message_start", "message": message},
        {"type": "ping"},
    ]
    if plan.thinking:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        thought = {"type": "thinking_delta", "thinking": plan.thinking}
        events += [
            _start(0, block),
            _delta(0, thought),
            _delta(0, {"type": "signature_delta", "signature": SIGNATURE}),
            {"type": "content_block_stop", "index": 0},
        ]
    return [*events, _start(_text_index(plan), {"type": "text", "text": ""})]


def _text_index(plan: FaultPlan) -> int:
    return 1 if plan.thinking else 0


def text_event(plan: FaultPlan, text: str) -> Event:
    return _delta(_text_index(plan), {"type": "text_delta", "text": text})


def end_events(plan: FaultPlan, words: int, stopped: str | None = None) -> list[Event]:
    """`stopped` is the stop sequence that ended the text, if one did."""
    delta = _end(plan, stopped)
    return [
        {"type": "content_block_stop", "index": _text_index(plan)},
        *(_call(plan) if plan.tool else ()),
        {"type": "message_delta", "delta": delta, **_usage(plan, words)},
        {"type": "message_stop"},
    ]


def _end(plan: FaultPlan, stopped: str | None) -> Event:
    reason = "tool_use" if plan.tool else "end_turn"
    if stopped is not None:
        reason = "stop_sequence"
    return {"stop_reason": reason, "stop_sequence": stopped}


def _call(plan: FaultPlan) -> list[Event]:
    index = _text_index(plan) + 1
    block = {"type": "tool_use", "id": "toolu_1", "name": plan.tool, "input": {}}
    pieces = [{"type": "input_json_delta", "partial_json": p} for p in plan.inputs()]
    stop = {"type": "content_block_stop", "index": index}
    return [_start(index, block), *(_delta(index, piece) for piece in pieces), stop]


def _message(plan: FaultPlan, model: str, body: Mapping[str, Any]) -> Event:
    """The same answer, not streamed."""
    words, stopped = reply(plan, body)
    message: Event = start_events(plan, model)[0]["message"]
    if plan.thinking:
        thought = {"type": "thinking", "thinking": plan.thinking}
        message["content"].append({**thought, "signature": SIGNATURE})
    message["content"].append({"type": "text", "text": "".join(words)})
    if plan.tool:
        call = {"type": "tool_use", "id": "toolu_1", "name": plan.tool}
        message["content"].append({**call, "input": json.loads(plan.tool_input)})
    return {**message, **_end(plan, stopped), **_usage(plan, len(words))}


def _start(index: int, block: Event) -> Event:
    return {"type": "content_block_start", "index": index, "content_block": block}


def _delta(index: int, delta: Event) -> Event:
    return {"type": "content_block_delta", "index": index, "delta": delta}


def sse(event: Event) -> bytes:
    data = json.dumps(event, ensure_ascii=False)
    return f"event: {event['type']}\ndata: {data}\n\n".encode()


def reply(plan: FaultPlan, body: Mapping[str, Any]) -> tuple[list[str], str | None]:
    """The words of the answer, and the stop sequence that ended it, if one did."""
    words = reply_pieces(plan, body["messages"], GO_ON)
    return cut_at(words, body.get("stop_sequences") or ())


def script(plan: FaultPlan, body: Mapping[str, Any]) -> Script:
    """As Anthropic and Mantle send it: as events, or whole."""
    if not body.get("stream"):
        return whole_script(plan, body["model"], body)
    words, stopped = reply(plan, body)
    texts = [sse(text_event(plan, word)) for word in words]
    return Script(
        content_type="text/event-stream; charset=utf-8",
        start=[sse(event) for event in start_events(plan, body["model"])],
        chunks=texts,
        end=[sse(event) for event in end_events(plan, len(words), stopped)],
        exception=sse(_error(plan)),
        damaged=b'data: {"type": "content_block_de\n\n',
    )


def whole_script(plan: FaultPlan, model: str, body: Mapping[str, Any]) -> Script:
    return whole(_message(plan, model, body), exception=_error(plan))


def _error(plan: FaultPlan) -> Event:
    told = plan.words_of_error or "Overloaded"
    kind = plan.exception or "overloaded_error"
    return {"type": "error", "error": {"type": kind, "message": told}}


def _fits(body: Mapping[str, Any]) -> bool:
    """Whether the choice of tools, if any, is one among those of the body."""
    choice = body.get("tool_choice")
    if choice is None:
        return True
    names = [tool["name"] for tool in body.get("tools") or ()]
    if choice["type"] == "tool":
        return choice["name"] in names
    return bool(names) and choice["type"] in {"auto", "any", "none"}


def _share(value: Any) -> bool:
    return value is None or (type(value) in (int, float) and 0 <= value <= 1)


def _thinks(model: str, body: Mapping[str, Any]) -> bool:
    """Whether the model can think so: by a budget up to Claude 4.5, later as it likes.

    While it does, `temperature` is 1.
    """
    thinking = body.get("thinking")
    match thinking:
        case None | {"type": "disabled"}:
            return True
        case {"type": "adaptive", **rest}:
            fits = not rest and not _TAKES_PREFILL.search(model)
        case {"type": "enabled", "budget_tokens": int(budget), **rest}:
            fits = not rest and 1024 <= budget < body["max_tokens"]
            fits = fits and bool(_TAKES_PREFILL.search(model))
        case _:
            fits = False
    return fits and body.get("temperature", 1) == 1


def _configures(body: Mapping[str, Any]) -> bool:
    config = body.get("output_config")
    if config is None:
        return True
    efforts = {None, "low", "medium", "high", "xhigh", "max"}
    format_ = config.get("format", {"type": "json_schema", "schema": {}})
    return (
        not config.keys() - {"effort", "format"}
        and config.get("effort") in efforts
        and format_.keys() == {"type", "schema"}
        and format_["type"] == "json_schema"
        and isinstance(format_["schema"], dict)
    )


def _blocks(message: Mapping[str, Any]) -> list[Event]:
    content = message["content"]
    text = {"type": "text", "text": content}
    return [text] if isinstance(content, str) else list(content)


def mistake(model: str, body: Mapping[str, Any]) -> str:
    """What is said of a body that Claude does not take; empty of a good one."""
    messages = body.get("messages") or []
    blocks = [block for message in messages for block in _blocks(message)]
    texts = [block["text"] for block in blocks if block["type"] == "text"]
    last = text_of(messages[-1]["content"]) if messages else ""
    prefill = bool(messages) and messages[-1]["role"] == "assistant"
    mistakes = {
        "max_tokens: Field required": not isinstance(body.get("max_tokens"), int),
        "messages: at least one message is required": not messages,
        'messages: roles must alternate between "user" and "assistant"': (
            not alternating([m["role"] for m in messages if m["role"] != "system"])
        ),
        "messages: text content blocks must be non-empty": (
            not all(text.strip() for text in texts)
        ),
        "messages: final assistant content cannot end with trailing whitespace": (
            prefill and last != last.rstrip()
        ),
        "This model does not support assistant message prefill. The conversation must "
        "end with a user message.": prefill and not _TAKES_PREFILL.search(model),
        "tool_choice: must fit the tools": not _fits(body),
        "temperature: must be between 0 and 1": not _share(body.get("temperature")),
        "top_p: must be between 0 and 1": not _share(body.get("top_p")),
        "top_k: must be an integer": type(body.get("top_k", 0)) is not int,
        "stop_sequences: must be non-empty strings": (
            not all(isinstance(s, str) and s for s in body.get("stop_sequences", ()))
        ),
        "thinking: is not supported so by this model": not _thinks(model, body),
        "output_config: is invalid": not _configures(body),
        "A maximum of 4 blocks with cache_control may be provided.": (
            json.dumps(body).count('"cache_control"') > MOST_MARKS
        ),
    }
    return next((text for text, wrong in mistakes.items() if wrong), "")


_COUNTED = {
    "cache_control", "messages", "model", "output_config", "system", "thinking",
    "tool_choice", "tools",
}  # fmt: skip


def counted_script(plan: FaultPlan, name: str) -> Script:
    return whole({name: plan.input_tokens}, exception=_error(plan))


def miscounted(_model: str, body: Mapping[str, Any]) -> str:
    """What is said of a body whose tokens are not counted; empty of a good one."""
    if extra := body.keys() - _COUNTED:
        return f"{min(extra)}: Extra inputs are not permitted"
    if not body.get("messages"):
        return "messages: at least one message is required"
    return ""
