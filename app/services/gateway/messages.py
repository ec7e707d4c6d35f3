"""Anthropic's Messages API, as clients ask for it, for models that do not speak it.

Reference: "Create a Message" in Anthropic's API documentation, as the anthropic package
for Python 2.14 types it, and the requests of Claude Code 2.1.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import orjson

from app.integrations.llm.base import (
    Block,
    ChatMessage,
    ChatRequest,
    OutputFormat,
    Thinking,
    Tool,
    ToolChoice,
)
from app.integrations.llm.forwarding import Spoken
from app.services.gateway.fields import Fields
from app.services.gateway.format import Ask, Format, Writer
from app.services.gateway.messages_writer import MessagesWriter, error

Json = dict[str, Any]

EFFORTS = ("low", "medium", "high", "xhigh", "max")

_HINTS = (
    "betas",
    "cache_control",
    "context_management",
    "diagnostics",
    "metadata",
)
_UNSUPPORTED = "is not supported for this model here"
_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "container": (),
    "inference_geo": (),
    "mcp_servers": ([],),
    "speed": ("standard",),
}
"""Each with what it says where it says nothing."""

_IMAGES = ("image/jpeg", "image/png", "image/gif", "image/webp")
_LEAST_BUDGET = 1024

Turn = tuple[Literal["user", "assistant"], list[Block]]


def read(body: Mapping[str, Any]) -> Ask:
    fields = Fields(body)
    opening, messages = _conversation(fields)
    tools = [_tool(tool) for tool in fields.objects("tools", ())]
    thinking, output_format = _output(fields)
    request = ChatRequest(
        model=fields.text("model"),
        messages=messages,
        system="\n\n".join(filter(None, [_instruction(fields, "system", ""), opening])),
        max_tokens=fields.whole("max_tokens", least=1),
        tools=tools,
        tool_choice=_tool_choice(fields, tools),
        temperature=fields.number("temperature", None),
        top_p=fields.number("top_p", None),
        top_k=fields.whole("top_k", None),
        stop_sequences=_stop_sequences(fields),
        thinking=thinking,
        output_format=output_format,
    )
    stream = fields.flag("stream", False)
    fields.choice("service_tier", "auto", "standard_only", default=None)
    for name, nothing in _REFUSED.items():
        fields.refuse(name, _UNSUPPORTED, but=nothing)
    fields.pass_over(*_HINTS)
    fields.finish()
    return Ask(request, body, stream=stream)


def _conversation(fields: Fields) -> tuple[str, list[ChatMessage]]:
    """What system messages say before the first turn; and the turns.

    Messages of one role that follow each other are one turn, as Anthropic has it. A
    system message after the first turn, as Claude Code sends them, stays at its place,
    as a user's text in tags: put before, it would speak of what has not been said yet.
    """
    opening: list[str] = []
    turns: list[Turn] = []
    last_question = _last_question(fields)
    for number, message in enumerate(fields.objects("messages")):
        role = message.choice("role", "user", "assistant", "system")
        if role == "system":
            said = _reminder(message, passed=number < last_question)
            if not turns:
                opening.append(said)
                said = ""
            role, blocks = "user", [_said(f"<system>\n{said}\n</system>")] * bool(said)
        else:
            blocks = _content(message, "content", _READERS[role])
        message.finish()
        if turns and turns[-1][0] == role:
            turns[-1][1].extend(blocks)
        elif blocks:
            turns.append((role, blocks))
    if not turns:
        raise fields.wrong("messages", "must hold a message that says something")
    messages = [ChatMessage(role, blocks) for role, blocks in turns]
    return "\n\n".join(filter(None, opening)), messages


def _last_question(fields: Fields) -> int:
    """The place of the user's last message."""
    roles = [
        m.get("role") if isinstance(m, dict) else m for m in fields.items("messages")
    ]
    return max((n for n, role in enumerate(roles) if role == "user"), default=-1)


def _reminder(message: Fields, *, passed: bool) -> str:
    """What a system message says; nothing, where it was for one turn that is over."""
    said = _instruction(message, "content")
    until = message.choice("clear_at", "never", "next_user_message", default="never")
    return "" if passed and until == "next_user_message" else said


def _instruction(fields: Fields, name: str, *default: str) -> str:
    return "\n\n".join(b["text"] for b in _content(fields, name, _TEXT, *default))


Reader = Callable[[Fields], Iterator[Block]]


def _content(
    fields: Fields, name: str, readers: Mapping[str, Reader], *default: str
) -> list[Block]:
    """A string or blocks, of the types that have a reader; blank text says nothing."""
    content = fields.any(name, *default)
    if isinstance(content, str):
        return [_said(content)] if content.strip() else []
    if not isinstance(content, list):
        raise fields.wrong(name, "must be a string or a list of blocks")
    read_: list[Block] = []
    for block in fields.objects(name):
        kind = block.text("type")
        if kind not in readers:
            raise block.wrong("type", f"{kind!r} {_UNSUPPORTED}")
        block.pass_over("cache_control")
        read_ += readers[kind](block)
        block.finish()
    return read_


def _said(text: str) -> Block:
    return {"type": "text", "text": text}


def _text(block: Fields) -> Iterator[Block]:
    """What an answer before has quoted, its text says as well."""
    block.pass_over("citations")
    text = block.text("text")
    if text.strip():
        yield _said(text)


def _image(block: Fields) -> Iterator[Block]:
    block.pass_over("transformations")
    source = block.object("source")
    kind = source.choice("type", "base64", "url")
    told: Json = {"type": kind}
    if kind == "url":
        told["url"] = source.text("url")
    else:
        told["media_type"] = source.choice("media_type", *_IMAGES)
        told["data"] = source.text("data")
    source.finish()
    yield {"type": "image", "source": told}


def _document(block: Fields) -> Iterator[Block]:
    """A document; one that is made of blocks is those blocks."""
    _refuse_citations(block)
    title, context = block.text("title", ""), block.text("context", "")
    if context:
        yield _said(context)
    source = block.object("source")
    match source.choice("type", "base64", "text", "content"):
        case "content":
            if title:
                yield _said(title)
            yield from _content(source, "content", _PARTS)
        case kind:
            usual = "application/pdf" if kind == "base64" else "text/plain"
            media_type, data = source.choice("media_type", usual), source.text("data")
            told = {"type": kind, "media_type": media_type, "data": data}
            titled = {"title": title} if title else {}
            yield {"type": "document", "source": told, **titled}
    source.finish()


def _search_result(block: Fields) -> Iterator[Block]:
    """A text below its title and its source."""
    _refuse_citations(block)
    found = _instruction(block, "content")
    yield _said(f"{block.text('title')}\n{block.text('source')}\n\n{found}")


def _refuse_citations(block: Fields) -> None:
    citations = block.object("citations", None)
    if citations is not None:
        citations.refuse("enabled", _UNSUPPORTED, but=(False,))
        citations.finish()


def _tool_reference(block: Fields) -> Iterator[Block]:
    """What a search for tools has found; a model here knows all from the start."""
    yield _said(f"The tool {block.text('tool_name')} can be called.")


def _tool_result(block: Fields) -> Iterator[Block]:
    block.refuse("toolset_name", _UNSUPPORTED)
    content = block.any("content", "")
    told: Block = {
        "type": "tool_result",
        "tool_use_id": block.text("tool_use_id"),
        "content": content
        if isinstance(content, str)
        else _content(block, "content", _RESULTS),
    }
    yield told | ({"is_error": True} if block.flag("is_error", False) else {})


def _tool_use(block: Fields) -> Iterator[Block]:
    block.refuse("caller", _UNSUPPORTED, but=({"type": "direct"},))
    block.refuse("toolset_name", _UNSUPPORTED)
    yield {
        "type": "tool_use",
        "id": block.text("id"),
        "name": block.text("name"),
        "input": block.json("input"),
    }


def _thinking(block: Fields) -> Iterator[Block]:
    """No model reads the thinking of another; its provider leaves it out."""
    thought, signature = block.text("thinking"), block.text("signature", "")
    yield {"type": "thinking", "thinking": thought, "signature": signature}


def _redacted_thinking(block: Fields) -> Iterator[Block]:
    yield {"type": "redacted_thinking", "data": block.text("data")}


_TEXT: Mapping[str, Reader] = {"text": _text}
_PARTS: Mapping[str, Reader] = {**_TEXT, "image": _image}
_GIVEN: Mapping[str, Reader] = {
    **_PARTS,
    "document": _document,
    "search_result": _search_result,
}
_RESULTS: Mapping[str, Reader] = {**_GIVEN, "tool_reference": _tool_reference}
_READERS: Mapping[str, Mapping[str, Reader]] = {
    "user": {**_GIVEN, "tool_result": _tool_result},
    "assistant": {
        **_TEXT,
        "thinking": _thinking,
        "redacted_thinking": _redacted_thinking,
        "tool_use": _tool_use,
    },
}


def _tool(tool: Fields) -> Tool:
    """A tool of the client's own. Those with a type are known to Claude alone."""
    kind = tool.text("type", "custom")
    if kind != "custom":
        raise tool.wrong("type", f"{kind!r} {_UNSUPPORTED}: describe it as a tool")
    tool.pass_over("cache_control", "defer_loading", "eager_input_streaming")
    tool.refuse("allowed_callers", _UNSUPPORTED, but=(["direct"],))
    described = tool.text("description", "")
    if examples := tool.items("input_examples", None):
        described += f"\n\nExamples of its input: {orjson.dumps(examples).decode()}"
    read_: Tool = {
        "name": tool.text("name"),
        **({"description": described} if described else {}),
        "input_schema": tool.json("input_schema"),
        **({"strict": True} if tool.flag("strict", False) else {}),
    }
    tool.finish()
    return read_


def _tool_choice(fields: Fields, tools: Sequence[Tool]) -> ToolChoice | None:
    choice = fields.object("tool_choice", None)
    if choice is None:
        return None
    kind = choice.choice("type", "auto", "any", "tool", "none")
    read_: ToolChoice = {"type": kind}
    if kind == "tool":
        read_["name"] = choice.text("name")
        if all(tool["name"] != read_["name"] for tool in tools):
            raise choice.wrong("name", "is not the name of one of the tools")
    elif kind == "any" and not tools:
        raise choice.wrong("type", "needs tools to choose from")
    if kind != "none" and choice.flag("disable_parallel_tool_use", False):
        read_["disable_parallel_tool_use"] = True
    choice.finish()
    return read_ if tools else None


def _stop_sequences(fields: Fields) -> list[str]:
    told = fields.items("stop_sequences", [])
    if not all(isinstance(sequence, str) and sequence for sequence in told):
        raise fields.wrong("stop_sequences", "must be strings that are not empty")
    return list(told)


def _output(fields: Fields) -> tuple[Thinking | None, OutputFormat | None]:
    """How much to think, and what the answer is to be."""
    effort, formats = None, [_output_format(fields, "output_format")]
    config = fields.object("output_config", None)
    if config is not None:
        effort = config.choice("effort", *EFFORTS, default=None)
        formats.append(_output_format(config, "format"))
        config.finish()
    told = [wanted for wanted in formats if wanted is not None]
    if told[1:]:
        raise fields.wrong("output_format", "is the old name of output_config.format")
    return _thinks(fields, effort), next(iter(told), None)


def _thinks(fields: Fields, effort: str | None) -> Thinking | None:
    """What `thinking` and an effort say together.

    A budget is the more exact of the two. `display` is the writer's matter.
    """
    adaptive: Thinking = {"type": "adaptive", **({"effort": effort} if effort else {})}
    told = fields.object("thinking", None)
    if told is None:
        return adaptive if effort else None
    kind = told.choice("type", "enabled", "adaptive", "disabled")
    budget = None
    if kind != "disabled":
        told.choice("display", "summarized", "omitted", default=None)
    if kind == "enabled":
        budget = told.whole("budget_tokens", None, least=_LEAST_BUDGET)
    told.finish()
    if kind == "disabled":
        return {"type": "disabled"}
    return {"type": "enabled", "budget_tokens": budget} if budget else adaptive


def _output_format(fields: Fields, name: str) -> OutputFormat | None:
    told = fields.object(name, None)
    if told is None:
        return None
    kind, schema = told.choice("type", "json_schema"), told.json("schema")
    told.finish()
    return {"type": kind, "name": "answer", "schema": schema}


class Messages:
    spoken: Spoken | None = "messages"

    def read(self, body: Mapping[str, Any]) -> Ask:
        return read(body)

    def writer(self, ask: Ask, model: str) -> Writer:
        return MessagesWriter(ask, model)

    def error(self, problem: Mapping[str, Any]) -> Json:
        return error(problem)


MESSAGES: Format = Messages()
