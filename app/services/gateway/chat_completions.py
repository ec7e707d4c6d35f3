"""OpenAI's chat completions, as clients ask for them.

Reference: "Create chat completion" in OpenAI's API documentation, as the openai package
for Python 3.57 types it.
"""

from collections.abc import Mapping
from typing import Any

from app.integrations.llm.base import Block, ChatRequest, OutputFormat, Tool
from app.integrations.llm.forwarding import Spoken
from app.services.gateway import openai
from app.services.gateway.chat_completions_writer import ChatCompletionWriter
from app.services.gateway.fields import Fields
from app.services.gateway.format import Ask, Format, Writer
from app.services.gateway.openai import Conversation, text_block

Json = dict[str, Any]

_REFUSED: Mapping[str, tuple[Any, ...]] = {
    "audio": ({},),
    "frequency_penalty": (0,),
    "function_call": (),
    "functions": ([],),
    "logit_bias": ({},),
    "logprobs": (False,),
    "modalities": (["text"], []),
    "moderation": (),
    "n": (1,),
    "prediction": (),
    "presence_penalty": (0,),
    "seed": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
"""Each with what it says where it says nothing."""

_HINTS = (
    "metadata",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "safety_identifier",
    "user",
)
_HINTS_OF_MESSAGES = ("name", "cache_control")
_HINTS_OF_ANSWERS = (
    "annotations",
    "parsed",  # what OpenAI's SDK made of an answer, and sends back with it
    "reasoning",
    "reasoning_content",  # no model reads the thinking of another
)
_MOST_STOPS = 4
_MOST_TEMPERATURE = 2


def read(body: Mapping[str, Any]) -> Ask:
    fields = Fields(body)
    talk = Conversation()
    for message in fields.objects("messages"):
        _message(message, talk)
    system, messages = talk.said()
    if not messages:
        raise fields.wrong("messages", "must hold a message")
    tools = [_tool(tool) for tool in fields.objects("tools", ())]
    effort = fields.choice("reasoning_effort", *openai.EFFORTS, default=None)
    max_tokens, thinking = openai.length(_limit(fields), effort)
    request = ChatRequest(
        model=fields.text("model"),
        messages=messages,
        system=system,
        max_tokens=max_tokens,
        tools=tools,
        tool_choice=openai.tool_choice(fields, tools, named_in="function"),
        temperature=fields.number("temperature", None, most=_MOST_TEMPERATURE),
        top_p=fields.number("top_p", None),
        top_k=fields.whole("top_k", None),  # not OpenAI's, but many clients send it
        stop_sequences=_stops(fields),
        thinking=thinking,
        output_format=_output_format(fields),
    )
    stream, usage = fields.flag("stream", False), _include_usage(fields)
    openai.refuse_all(fields, _REFUSED)
    fields.pass_over(*_HINTS)
    fields.finish()
    return Ask(request, body, stream=stream, include_usage=usage)


def _message(message: Fields, talk: Conversation) -> None:
    message.pass_over(*_HINTS_OF_MESSAGES)
    match message.choice("role", "system", "developer", "user", "assistant", "tool"):
        case "user":
            talk.add("user", _content(message))
        case "assistant":
            talk.add("assistant", _answer(message))
        case "tool":
            told = message.any("content")
            content = told if isinstance(told, str) else _content(message)
            result = openai.result_block(message.text("tool_call_id"), content)
            talk.add("user", [result])
        case _:
            talk.instruct(_instruction(message))
    message.finish()


def _content(message: Fields) -> list[Block]:
    content = message.any("content")
    if isinstance(content, str):
        return [text_block(content)]
    if not isinstance(content, list) or not content:
        raise openai.no_parts(message, "content")
    return [_part(part) for part in message.objects("content")]


def _part(part: Fields) -> Block:
    part.pass_over(*openai.HINTS)
    match part.text("type"):
        case "text":
            block = text_block(part.text("text"))
        case "image_url":
            image = part.object("image_url")
            image.choice("detail", "auto", "low", "high", "original", default=None)
            block = openai.image_block(image, "url")
            image.finish()
        case "file":
            file = part.object("file")
            block = openai.document_block(file)
            file.finish()
        case other:
            raise part.wrong("type", f"{other!r} {openai.UNSUPPORTED}")
    part.finish()
    return block


def _instruction(message: Fields) -> str:
    content = _content(message)
    for number, block in enumerate(content):
        if block["type"] != "text":
            raise message.wrong(f"content.{number}.type", "must be text")
    return "\n\n".join(block["text"] for block in content)


def _answer(message: Fields) -> list[Block]:
    """An assistant's text and calls; empty text, which no model takes, is left out."""
    message.pass_over(*_HINTS_OF_ANSWERS)
    message.refuse("audio", openai.UNSUPPORTED)
    message.refuse("function_call", openai.UNSUPPORTED)
    content = message.any("content", None)
    if isinstance(content, list):
        texts = [_said(part) for part in message.objects("content")]
    else:
        texts = [message.text("content", "")]
    texts.append(message.text("refusal", ""))
    calls = [_call(call) for call in message.objects("tool_calls", ())]
    if content is None and not calls and not texts[-1]:
        raise message.wrong("content", "is required where there are no tool_calls")
    return [text_block(text) for text in texts if text] + calls


def _said(part: Fields) -> str:
    part.pass_over(*openai.HINTS)
    text: str = part.text(part.choice("type", "text", "refusal"))
    part.finish()
    return text


def _call(call: Fields) -> Block:
    call.choice("type", "function", default=None)
    call.pass_over("index")  # of pieces in a stream, which clients put together
    function = call.object("function")
    block = openai.call_block(function, call.text("id"))
    function.finish()
    call.finish()
    return block


def _tool(tool: Fields) -> Tool:
    tool.choice("type", "function")
    function = tool.object("function")
    read_ = openai.tool(function)
    function.finish()
    tool.finish()
    return read_


def _limit(fields: Fields) -> int | None:
    """The lower one, where both names of it are there."""
    told = [
        fields.whole(name, None, least=1)
        for name in ("max_completion_tokens", "max_tokens")
    ]
    return min((limit for limit in told if limit is not None), default=None)


def _stops(fields: Fields) -> list[str]:
    told = fields.any("stop", [])
    stops = [told] if isinstance(told, str) else fields.items("stop", [])
    if len(stops) > _MOST_STOPS or not all(isinstance(s, str) and s for s in stops):
        raise fields.wrong("stop", f"must be a string, or up to {_MOST_STOPS} of them")
    return list(stops)


def _include_usage(fields: Fields) -> bool:
    options = fields.object("stream_options", None)
    if options is None:
        return False
    usage: bool = options.flag("include_usage", False)
    options.refuse("include_obfuscation", openai.UNSUPPORTED, but=(False,))
    options.finish()
    return usage


def _output_format(fields: Fields) -> OutputFormat | None:
    told = fields.object("response_format", None)
    if told is None:
        return None
    kind, wanted = told.choice("type", "text", "json_object", "json_schema"), None
    if kind == "json_object":
        wanted = {"type": "json"}
    elif kind == "json_schema":
        schema = told.object("json_schema")
        wanted = openai.json_schema(schema)
        schema.finish()
    told.finish()
    return wanted


class ChatCompletions:
    spoken: Spoken | None = "chat_completions"

    def read(self, body: Mapping[str, Any]) -> Ask:
        return read(body)

    def writer(self, ask: Ask, model: str) -> Writer:
        return ChatCompletionWriter(ask, model)

    def error(self, problem: Mapping[str, Any]) -> Json:
        return openai.error(problem)


CHAT_COMPLETIONS: Format = ChatCompletions()
