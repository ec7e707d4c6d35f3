"""A message as Markdown, for people to read."""

import re
from collections.abc import Iterator
from contextlib import suppress

import orjson

from app.integrations.llm.base import Block
from app.models import Message

_SPEAKERS = {"user": "You", "assistant": "Assistant"}
_KINDS = {"application/pdf": "PDF", "text/plain": "text"}
_SIGNS = re.compile(r"([\\`*_\[\]<>#|!&~])")


def section(message: Message) -> str:
    """The message under a heading of its own.

    Images stand in it by their bytes, so that the file is whole; documents by their
    name; a model's reasoning not at all.
    """
    model = f" ({message.model})" if message.model else ""
    parts = [f"## {_SPEAKERS[message.role]}{model}"]
    for block in message.content:
        parts += _parts(block)
    if sources := dict.fromkeys(c["source"] for c in message.citations):
        parts.append("Sources: " + ", ".join(sources))
    if message.status != "complete":
        parts.append(f"*({message.status})*")
    return "".join(f"\n{part}\n" for part in parts)


def _parts(block: Block) -> Iterator[str]:
    match block["type"]:
        case "text":
            if text := block["text"].strip():
                yield text
        case "image":
            yield _image(block)
        case "document":
            yield _document(block)
        case "file":
            name, mime = _SIGNS.sub(r"\\\1", block["name"]), block["mime"]
            yield f"**File:** {name} ({_KINDS.get(mime, mime)})"
        case "tool_use":
            yield _call(block)
        case "tool_result":
            yield from _result(block)


def _image(block: Block) -> str:
    source = block["source"]
    return f"![Image](data:{source['media_type']};base64,{source['data']})"


def _document(block: Block) -> str:
    name = _SIGNS.sub(r"\\\1", block.get("title") or "untitled")
    media_type = block["source"]["media_type"]
    return f"**Document:** {name} ({_KINDS.get(media_type, media_type)})"


def _call(block: Block) -> str:
    given = block["input_json"]
    with suppress(orjson.JSONDecodeError):  # where it was cut off
        given = orjson.dumps(orjson.loads(given), option=orjson.OPT_INDENT_2).decode()
    name = _SIGNS.sub(r"\\\1", block["name"])
    return f"**Tool call:** {name}\n\n{_fenced(given, 'json')}"


def _result(block: Block) -> Iterator[str]:
    yield "**Tool error:**" if block.get("is_error") else "**Tool result:**"
    content = block.get("content") or ""
    if isinstance(content, str):
        content = [{"type": "text", "text": content}]
    for inner in content:
        if inner["type"] == "text":
            yield _fenced(inner["text"])
        else:
            yield from _parts(inner)


def _fenced(text: str, language: str = "") -> str:
    """As code, whatever it holds: the fence is longer than any run in the text."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"
