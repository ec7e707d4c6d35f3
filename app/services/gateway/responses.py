"""OpenAI's responses, as clients ask for them.

Reference: "Create a model response" in OpenAI's API documentation, as the openai
package for Python 3.57 types it. Nothing is stored here: what a client wants to go on
from, it sends again.
"""

from collections.abc import Mapping
from typing import Any

from app.integrations.llm.base import Block, ChatRequest, OutputFormat, Tool
from app.integrations.llm.forwarding import Spoken
from app.services.gateway import openai
from app.services.gateway.fields import Fields
from app.services.gateway.format import Ask, Format, Writer
from app.services.gateway.openai import Conversation, text_block
from app.services.gateway.responses_items import thinking_in
from app.services.gateway.responses_writer import ResponseWriter

Json = dict[str, Any]

_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "background": (False,),
    "context_management": ([],),
    "conversation": (),
    "moderation": (),
    "previous_response_id": (),
    "prompt": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
    "truncation": ("disabled",),
}
"""Each with what it says where it says nothing."""

_HINTS = (
    "max_tool_calls",  # of tools that OpenAI runs
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)
_HINTS_OF_ITEMS = ("id", "status", "phase")
_REFUSED_IN_TOOLS: Mapping[str, tuple[Any, ...]] = {
    "allowed_callers": (["direct"],),
    "async": (False,),
    "defer_loading": (False,),
    "output_schema": (),
}
_REFUSED_IN_CALLS: Mapping[str, tuple[Any, ...]] = {
    "async": (False,),
    "caller": ({"type": "direct"},),
    "namespace": (),
}
_REFUSED_IN_REASONING: Mapping[str, tuple[Any, ...]] = {
    "context": ("auto",),
    "mode": ("standard",),
}
_INCLUDED = (
    "reasoning.encrypted_content",  # which is there without being asked for
    # The rest is of what no answer from here holds.
    "code_interpreter_call.outputs",
    "computer_call_output.output.image_url",
    "file_search_call.results",
    "message.input_image.image_url",
    "web_search_call.action.sources",
    "web_search_call.results",
)
_MOST_TEMPERATURE = 2


def read(body: Mapping[str, Any]) -> Ask:
    fields = Fields(body)
    talk = Conversation(fields.text("instructions", ""))
    _input(fields, talk)
    system, messages = talk.said()
    if not messages:
        raise fields.wrong("input", "must hold a message")
    tools = [_tool(tool) for tool in fields.objects("tools", ())]
    limit = fields.whole("max_output_tokens", None, least=1)
    max_tokens, thinking = openai.length(limit, _effort(fields))
    request = ChatRequest(
        model=fields.text("model"),
        messages=messages,
        system=system,
        max_tokens=max_tokens,
        tools=tools,
        tool_choice=openai.tool_choice(fields, tools),
        temperature=fields.number("temperature", None, most=_MOST_TEMPERATURE),
        top_p=fields.number("top_p", None),
        thinking=thinking,
        output_format=_output_format(fields),
    )
    stream = fields.flag("stream", False)
    _stream_options(fields)
    _include(fields)
    openai.refuse_all(fields, _REFUSED)
    fields.pass_over(*_HINTS)
    fields.finish()
    return Ask(request, body, stream=stream)


def _input(fields: Fields, talk: Conversation) -> None:
    told = fields.any("input")
    if isinstance(told, str):
        talk.add("user", [text_block(told)])
        return
    for item in fields.objects("input"):
        _item(item, talk)


def _item(item: Fields, talk: Conversation) -> None:
    item.pass_over(*_HINTS_OF_ITEMS)
    match item.text("type", "message"):
        case "message":
            _message(item, talk)
        case "function_call":
            call = openai.call_block(item, item.text("call_id"))
            talk.add("assistant", [call])
            openai.refuse_all(item, _REFUSED_IN_CALLS)
        case "function_call_output":
            told = item.any("output")
            content = told if isinstance(told, str) else _parts(item, "output")
            result = openai.result_block(item.text("call_id"), content)
            talk.add("user", [result])
            item.pass_over("name")
            openai.refuse_all(item, _REFUSED_IN_CALLS)
        case "reasoning":
            talk.add("assistant", _thinking(item))
        case other:
            raise item.wrong("type", f"{other!r} {openai.UNSUPPORTED}")
    item.finish()


def _message(item: Fields, talk: Conversation) -> None:
    match item.choice("role", "user", "assistant", "system", "developer"):
        case "user":
            talk.add("user", _content(item))
        case "assistant":
            said = [block for block in _content(item) if block["text"]]
            talk.add("assistant", said)
        case _:
            talk.instruct("\n\n".join(block["text"] for block in _content(item)))


def _content(item: Fields) -> list[Block]:
    """What a message says; only a user's may hold more than text."""
    content = item.any("content")
    if isinstance(content, str):
        return [text_block(content)]
    blocks = _parts(item, "content")
    if item.text("role") != "user":
        for number, block in enumerate(blocks):
            if block["type"] != "text":
                raise item.wrong(f"content.{number}.type", "must be text")
    return blocks


def _parts(item: Fields, name: str) -> list[Block]:
    parts = [_part(part) for part in item.objects(name)]
    if not parts:
        raise openai.no_parts(item, name)
    return parts


def _part(part: Fields) -> Block:
    part.pass_over(*openai.HINTS)
    match part.text("type"):
        case "input_text":
            block = text_block(part.text("text"))
        case "output_text":
            # `parsed` is what OpenAI's SDK made of it, and sends back with it.
            part.pass_over("annotations", "logprobs", "parsed")
            block = text_block(part.text("text"))
        case "refusal":
            block = text_block(part.text("refusal"))
        case "input_image":
            part.choice("detail", "auto", "low", "high", "original", default=None)
            part.refuse("file_id", openai.NOT_STORED)
            block = openai.image_block(part, "image_url")
        case "input_file":
            part.choice("detail", "auto", "low", "high", default=None)
            part.refuse("file_url", openai.NOT_STORED)
            block = openai.document_block(part)
        case other:
            raise part.wrong("type", f"{other!r} {openai.UNSUPPORTED}")
    part.finish()
    return block


def _thinking(item: Fields) -> list[Block]:
    """Thinking that a model of ours signed; that of others says nothing to it."""
    item.pass_over("content")
    sealed = item.text("encrypted_content", "")
    texts = []
    for part in item.objects("summary", ()):
        part.choice("type", "summary_text")
        texts.append(part.text("text"))
        part.finish()
    block = thinking_in(sealed, "".join(texts))
    return [block] if block else []


def _tool(tool: Fields) -> Tool:
    kind = tool.text("type")
    if kind != "function":
        raise tool.wrong("type", f"{kind!r} {openai.UNSUPPORTED}")
    read_ = openai.tool(tool)
    openai.refuse_all(tool, _REFUSED_IN_TOOLS)
    tool.finish()
    return read_


def _effort(fields: Fields) -> str | None:
    """Summaries are hints: what is thought is told anyway."""
    told = fields.object("reasoning", None)
    if told is None:
        return None
    effort: str | None = told.choice("effort", *openai.EFFORTS, default=None)
    told.pass_over("summary", "generate_summary")
    openai.refuse_all(told, _REFUSED_IN_REASONING)
    told.finish()
    return effort


def _output_format(fields: Fields) -> OutputFormat | None:
    text = fields.object("text", None)
    if text is None:
        return None
    text.refuse("verbosity", openai.UNSUPPORTED, but=("medium",))
    told, wanted = text.object("format", None), None
    if told is not None:
        kind = told.choice("type", "text", "json_object", "json_schema")
        if kind == "json_object":
            wanted = {"type": "json"}
        elif kind == "json_schema":
            wanted = openai.json_schema(told)
        told.finish()
    text.finish()
    return wanted


def _stream_options(fields: Fields) -> None:
    if (options := fields.object("stream_options", None)) is not None:
        options.refuse("include_obfuscation", openai.UNSUPPORTED, but=(False,))
        options.finish()


def _include(fields: Fields) -> None:
    for number, name in enumerate(fields.items("include", ())):
        if name not in _INCLUDED:
            raise fields.wrong(f"include.{number}", openai.UNSUPPORTED)


class Responses:
    spoken: Spoken | None = None

    def read(self, body: Mapping[str, Any]) -> Ask:
        return read(body)

    def writer(self, ask: Ask, model: str) -> Writer:
        return ResponseWriter(ask, model)

    def error(self, problem: Mapping[str, Any]) -> Json:
        return openai.error(problem)


RESPONSES: Format = Responses()
