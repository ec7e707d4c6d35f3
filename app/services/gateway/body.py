"""What is told by any client's body, whatever its format."""

import json
from asyncio import to_thread
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from app.integrations.llm.base import ModelInfo
from app.integrations.llm.tokens import (
    DOCUMENT_CHARS_A_TOKEN,
    DOCUMENT_TOKENS,
    IMAGE_TOKENS,
)
from app.services.gateway.fields import InvalidFieldError, Json

MOST_MESSAGES = 10_000
_BYTES_A_TOKEN = 4
_LARGE = 64 * 2**10  # bytes
_LIMITS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
_LISTS = ("messages", "input")
_IMAGES = ("image", "image_url", "input_image")
_DOCUMENTS = ("document", "file", "input_file")


async def parse(raw: bytes) -> Json:
    """The object that a body is; raises InvalidFieldError.

    A field that is there twice is refused: who checks one of them and goes by the
    other could be made to do what was never allowed.
    """
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidFieldError("", f"is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise InvalidFieldError("", "must be a JSON object")
    # Most clients write JSON as we do; of theirs, another look is not needed.
    if orjson.dumps(body) != raw:
        if len(raw) > _LARGE:
            await to_thread(_refuse_twins, raw)
        else:
            _refuse_twins(raw)
    return body


def _refuse_twins(raw: bytes) -> None:
    def once(pairs: list[tuple[str, Any]]) -> None:
        if len(dict(pairs)) < len(pairs):
            (twin, _), *_ = Counter(name for name, _ in pairs).most_common(1)
            raise InvalidFieldError(twin, "is there twice")

    json.loads(raw, object_pairs_hook=once)


def model_name(body: Mapping[str, Any]) -> str:
    name = body.get("model")
    if not isinstance(name, str) or not name:
        raise InvalidFieldError("model", "must name a model")
    return name


def streams(body: Mapping[str, Any]) -> bool:
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise InvalidFieldError("stream", "must be a boolean")
    return bool(stream)


def conversation(body: Mapping[str, Any]) -> list[Any]:
    """The messages or items of a body; raises InvalidFieldError for too many."""
    for name in _LISTS:
        told = body.get(name)
        if isinstance(told, str) and name == "input":
            return [{"role": "user", "content": told}]
        if isinstance(told, list):
            if not told:
                raise InvalidFieldError(name, "must not be empty")
            if len(told) > MOST_MESSAGES:
                raise InvalidFieldError(name, f"has more than {MOST_MESSAGES} entries")
            return told
        if told is not None:
            raise InvalidFieldError(name, "must be a list")
    raise InvalidFieldError("messages", "is required")


def is_turn(messages: list[Any]) -> bool:
    """Whether it is not a tool's result that goes to the model.

    Who says anything after a person, in whatever role, has not undone the turn.
    """
    last = messages[-1]
    if not isinstance(last, dict):
        return True
    if last.get("role") == "tool" or last.get("type") == "function_call_output":
        return False
    content = last.get("content")
    return not (
        isinstance(content, list)
        and content
        and all(isinstance(b, dict) and b.get("type") == "tool_result" for b in content)
    )


def input_tokens(messages: Iterable[Any], size: int) -> int:
    """An estimate from above for a body of `size` bytes; files count by their kind."""
    if size <= _LARGE:
        return size // _BYTES_A_TOKEN
    files = tokens = 0
    for block in _blocks(messages):
        kind = block.get("type")
        if kind in _IMAGES or kind in _DOCUMENTS:
            length = sum(map(len, _strings(block)))
            files += length
            tokens += (
                IMAGE_TOKENS
                if kind in _IMAGES
                else DOCUMENT_TOKENS + length // DOCUMENT_CHARS_A_TOKEN
            )
    return tokens + max(size - files, 0) // _BYTES_A_TOKEN


def output_tokens(body: Mapping[str, Any], model: ModelInfo) -> int:
    """The most that an answer can have."""
    most = model.max_output_tokens
    for name in _LIMITS:
        if (told := body.get(name)) is None:
            continue
        if type(told) is not int or told < 1:
            raise InvalidFieldError(name, "must be an integer, 1 or more")
        most = min(most, told)
    return most


def _blocks(messages: Iterable[Any]) -> Iterable[Json]:
    for message in messages:
        content = message.get("content") if isinstance(message, dict) else None
        if isinstance(content, list):
            yield from (block for block in content if isinstance(block, dict))
            yield from _blocks(content)  # what is inside of a tool's result


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _strings(inner)
