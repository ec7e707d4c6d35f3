"""Ollama's chat format: our requests, written in it.

Only the format, no transport. Reference: "Generate a chat message" in Ollama's API
documentation.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from app.integrations.llm.base import Block, ChatMessage, ChatRequest, ModelInfo
from app.integrations.llm.blocks import (
    document_text,
    rejected,
    rejected_choice,
    rejected_field,
    result_text,
)
from app.integrations.llm.chat_completions import functions
from app.integrations.llm.messages_api import continued, effort_of

WHO = "Ollama"

_KNOWS_LEVELS = "gpt-oss"

Json = dict[str, Any]


def calling(request: ChatRequest) -> Json:
    """The tools that a model may call. Ollama's API takes no choice among them.

    It drops a `tool_choice` silently, so one that asks for a call is refused; "none" is
    done by leaving the tools out.
    """
    choice = request.tool_choice or {"type": "auto"}
    if choice.get("disable_parallel_tool_use"):
        raise rejected_choice(choice, WHO, " with disable_parallel_tool_use")
    match choice.get("type"):
        case "auto" if request.tools:
            return {"tools": functions(request.tools)}
        case "auto" | "none":
            return {}
        case _:
            raise rejected_choice(choice, WHO)


def sampling(request: ChatRequest) -> Json:
    optional = {
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop": list(request.stop_sequences) or None,
    }
    return {name: value for name, value in optional.items() if value is not None}


def thinking(request: ChatRequest, info: ModelInfo) -> Json:
    """Whether to think, and how much. Ollama refuses both where a model cannot.

    Levels it takes for gpt-oss alone, which cannot but think.
    """
    if (wanted := request.thinking) is None:
        return {}
    if "thinking" not in info.capabilities:
        if wanted["type"] == "enabled":
            raise rejected_field("thinking", info.name)
        return {}
    if wanted["type"] == "disabled":
        return {"think": False}
    effort = effort_of(wanted) if _KNOWS_LEVELS in request.model else None
    return {"think": effort or True}


def formatted(request: ChatRequest) -> Json:
    wanted = request.output_format
    return {"format": wanted.get("schema", "json")} if wanted else {}


def messages(request: ChatRequest) -> list[Json]:
    said, _ = continued(request.messages, prefill=False)
    written: list[Json] = []
    if request.system:
        written.append({"role": "system", "content": request.system})
    tools: dict[str, str] = {}
    for message in said:
        written += _message(message, tools)
    return written


def _message(message: ChatMessage, tools: dict[str, str]) -> Iterator[Json]:
    """A message as one of theirs, after one for each result of a tool.

    What a tool gave as images the user shows. `tools` collects the names of the calls:
    Ollama knows a result by its tool's name.
    """
    texts: list[str] = []
    images: list[str] = []
    calls: list[Json] = []
    for block in message.content:
        match block.get("type"):
            case "text":
                texts.append(block["text"])
            case "image":
                images.append(_image(block))
            case "document" if (text := document_text(block)) is not None:
                texts.append(text)
            case "tool_use":
                tools[block["id"]] = block["name"]
                called = {"name": block["name"], "arguments": block.get("input", {})}
                calls.append({"function": called})
            case "tool_result":
                name = tools.get(block["tool_use_id"], "")
                told, shown = result_text(block, WHO)
                images += map(_image, shown)
                yield {"role": "tool", "tool_name": name, "content": told}
            case "thinking" | "redacted_thinking":
                pass
            case _:
                raise rejected(block, WHO)
    if texts or images or calls:
        separator = "" if message.role == "assistant" else "\n\n"
        said: Json = {"role": message.role, "content": separator.join(texts)}
        parts: Sequence[tuple[str, Any]] = (("images", images), ("tool_calls", calls))
        yield said | {name: part for name, part in parts if part}


def _image(block: Block) -> str:
    """Its bytes, in base64."""
    if block["source"]["type"] != "base64":
        raise rejected(block, WHO, " by address: send its bytes")
    data: str = block["source"]["data"]
    return data
