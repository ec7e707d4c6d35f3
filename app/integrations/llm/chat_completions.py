"""OpenAI's chat completions format: our messages and tools, written in it.

Only the format, no transport. Reference: "Create chat completion" in OpenAI's API
documentation. Servers other than OpenAI's own take files by no common form.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import orjson

from app.integrations.llm.base import (
    Block,
    ChatMessage,
    ChatRequest,
    OutputFormat,
    Tool,
)
from app.integrations.llm.blocks import (
    document_text,
    rejected,
    rejected_choice,
    result_text,
)
from app.integrations.llm.messages_api import continued

Json = dict[str, Any]


def chat_messages(request: ChatRequest, who: str, *, takes_files: bool) -> list[Json]:
    """Raises ProviderRejectedError naming a block that the format has no form for."""
    messages, _ = continued(request.messages, prefill=False)
    written: list[Json] = []
    if request.system:
        written.append({"role": "system", "content": request.system})
    for message in messages:
        if message.role == "assistant":
            written.append(_answer(message, who))
        else:
            written += _question(message, who, takes_files=takes_files)
    return written


def functions(tools: Sequence[Tool]) -> list[Json]:
    return [
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool.get("description", ""),
                "parameters": tool.get("input_schema", {"type": "object"}),
                **({"strict": True} if tool.get("strict") else {}),
            },
        }
        for tool in tools
    ]


def calling(request: ChatRequest, who: str) -> Json:
    """The fields of a request that are about tools; none where there is no tool.

    Raises ProviderRejectedError for a choice of another type than Anthropic's.
    """
    fields: Json = {"tools": functions(request.tools)} if request.tools else {}
    if (choice := request.tool_choice) is None:
        return fields
    match choice.get("type"):
        case "auto" | "none" as told:
            fields["tool_choice"] = told
        case "any":
            fields["tool_choice"] = "required"
        case "tool":
            function = {"name": choice.get("name")}
            fields["tool_choice"] = {"type": "function", "function": function}
        case _:
            raise rejected_choice(choice, who)
    if choice.get("disable_parallel_tool_use"):
        fields["parallel_tool_calls"] = False
    return fields


def output(request: ChatRequest) -> Json:
    """The fields of a request that say how the answer is to be written."""
    optional = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "stop": list(request.stop_sequences) or None,
        "response_format": _response_format(request.output_format),
    }
    return {name: value for name, value in optional.items() if value is not None}


def _response_format(wanted: OutputFormat | None) -> Json | None:
    """Without `strict` OpenAI would take the schema for a mere hint."""
    if wanted is None:
        return None
    if wanted["type"] == "json":
        return {"type": "json_object"}
    schema = {"name": wanted["name"], "schema": wanted["schema"], "strict": True}
    return {"type": "json_schema", "json_schema": schema}


def _answer(message: ChatMessage, who: str) -> Json:
    """An assistant's blocks are one text, split at citations; its thinking is left out.

    No other model reads the thinking of one.
    """
    texts: list[str] = []
    calls: list[Json] = []
    for block in message.content:
        match block.get("type"):
            case "text":
                texts.append(block["text"])
            case "tool_use":
                calls.append(_call(block))
            case "thinking" | "redacted_thinking":
                pass
            case _:
                raise rejected(block, who)
    answer: Json = {"role": "assistant", "content": "".join(texts)}
    if calls:
        answer["tool_calls"] = calls
        answer["content"] = answer["content"] or None
    return answer


def _call(block: Block) -> Json:
    arguments = orjson.dumps(block.get("input", {})).decode()
    function = {"name": block["name"], "arguments": arguments}
    return {"id": block["id"], "type": "function", "function": function}


def _question(message: ChatMessage, who: str, *, takes_files: bool) -> Iterator[Json]:
    """A user's message; the results of tools go first, each as a message of its own.

    Such a message has no place for images: the user shows them.
    """
    parts: list[Json] = []
    for block in message.content:
        if block.get("type") == "tool_result":
            told, images = result_text(block, who)
            id_ = block["tool_use_id"]
            yield {"role": "tool", "tool_call_id": id_, "content": told}
            parts += [_part(image, who, takes_files=takes_files) for image in images]
        else:
            parts.append(_part(block, who, takes_files=takes_files))
    if not parts:
        return
    if all(part["type"] == "text" for part in parts):
        # Many servers take no list of parts where a string will do.
        text = "\n\n".join(part["text"] for part in parts)
        yield {"role": "user", "content": text}
    else:
        yield {"role": "user", "content": parts}


def _part(block: Block, who: str, *, takes_files: bool) -> Json:
    match block.get("type"):
        case "text":
            return {"type": "text", "text": block["text"]}
        case "image":
            source = block["source"]
            url = source["url"] if source["type"] == "url" else _data_url(source)
            return {"type": "image_url", "image_url": {"url": url}}
        case "document" if (text := document_text(block)) is not None:
            return {"type": "text", "text": text}
        case "document" if takes_files and block["source"]["type"] == "base64":
            name = block.get("title") or "document.pdf"
            data = _data_url(block["source"])
            return {"type": "file", "file": {"filename": name, "file_data": data}}
        case _:
            raise rejected(block, who)


def _data_url(source: Json) -> str:
    return f"data:{source['media_type']};base64,{source['data']}"
