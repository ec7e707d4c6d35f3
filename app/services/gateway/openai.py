"""What OpenAI's two formats have in common.

Reference: "Create chat completion", "Create a model response" and "Error codes" in
OpenAI's API documentation.
"""

from base64 import b64decode
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import orjson

from app.integrations.llm.base import (
    Block,
    ChatMessage,
    OutputFormat,
    Thinking,
    Tool,
    ToolChoice,
)
from app.services.gateway.fields import Fields, InvalidFieldError

Json = dict[str, Any]

UNSUPPORTED = "is not supported for this model here"
HINTS = ("prompt_cache_breakpoint", "cache_control")
"""Of any part of a message: what may be worth keeping in a provider's cache."""

_USUAL_TOKENS = 4096
"""Of an answer that the client sets no limit to."""

_LEAST_BUDGET = 1024
_BUDGETS: Mapping[str, int] = {
    "minimal": _LEAST_BUDGET,
    "low": 2048,
    "medium": 4096,
    "high": 8192,
    "xhigh": 16384,
    "max": 24576,
}
"""Tokens to think with. With the usual answer, the most stays below the 32,000 tokens
that every Claude model can write which thinks by a budget."""

EFFORTS = ("none", *_BUDGETS)

_TYPES: Mapping[int, str] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    429: "rate_limit_error",
}
_CODES: Mapping[str, str] = {
    "unauthenticated": "invalid_api_key",
    "token_expired": "invalid_api_key",
    "unknown_model": "model_not_found",
    "insufficient_credits": "insufficient_quota",
    "rate_limited": "rate_limit_exceeded",
}
"""Ours that OpenAI has a name for, which clients may look at; others stay ours."""

_CHOICES: Mapping[str, str] = {"auto": "auto", "required": "any", "none": "none"}

_SERVER_ERROR = 500
_PDF = "application/pdf"
_PDF_BASE64 = "JVBERi"  # %PDF
NOT_STORED = "is not supported: send the content itself"


def error(problem: Mapping[str, Any]) -> Json:
    """OpenAI's form of an RFC 9457 problem, for either format."""
    status, code = problem["status"], problem.get("code")
    usual = "server_error" if status >= _SERVER_ERROR else "invalid_request_error"
    wrong = problem.get("errors")
    return {
        "error": {
            "message": problem.get("detail") or problem["title"],
            "type": _TYPES.get(status, usual),
            "param": wrong[0]["path"] if wrong else None,
            "code": _CODES.get(code, code) if code else None,
        }
    }


class Conversation:
    """Messages on their way to our form.

    Those of one role that follow each other are one turn, as Anthropic has it: what an
    assistant says and calls, the results of several tools.
    """

    def __init__(self, *instructions: str) -> None:
        self._system = [text for text in instructions if text]
        self._turns: list[tuple[Literal["user", "assistant"], list[Block]]] = []

    def instruct(self, text: str) -> None:
        """Take the words of a system or developer message.

        One that comes later stays at its place, as a user's text in tags: joined to
        the first ones, it would speak of what has not been said yet.
        """
        if self._turns:
            self.add("user", [text_block(f"<system>\n{text}\n</system>")])
        else:
            self._system.append(text)

    def add(self, role: Literal["user", "assistant"], blocks: list[Block]) -> None:
        if self._turns and self._turns[-1][0] == role:
            self._turns[-1][1].extend(blocks)
        elif blocks:
            self._turns.append((role, blocks))

    def said(self) -> tuple[str, list[ChatMessage]]:
        """The system text, and the messages; without any, the system text asks."""
        system = "\n\n".join(self._system)
        if self._turns or not system:
            return system, [ChatMessage(role, blocks) for role, blocks in self._turns]
        return "", [ChatMessage("user", [text_block(system)])]


def result_block(call_id: str, content: str | list[Block]) -> Block:
    """Blank text, which some tools give, models take as a string alone."""
    return {"type": "tool_result", "tool_use_id": call_id, "content": content}


def text_block(text: str) -> Block:
    return {"type": "text", "text": text}


def image_block(fields: Fields, name: str) -> Block:
    """The image at the address in that field, or in it."""
    url = fields.text(name)
    if url.startswith(("https://", "http://")):
        return {"type": "image", "source": {"type": "url", "url": url}}
    media_type, data = _data_url(fields, name)
    source = {"type": "base64", "media_type": media_type, "data": data}
    return {"type": "image", "source": source}


def document_block(fields: Fields) -> Block:
    """The file in `file_data`: a PDF, or a text."""
    fields.refuse("file_id", NOT_STORED)
    media_type, data = _PDF, fields.text("file_data")
    if not data.startswith(_PDF_BASE64):
        media_type, data = _data_url(fields, "file_data")
    if media_type == _PDF:
        source = {"type": "base64", "media_type": _PDF, "data": data}
    elif media_type.startswith("text/"):
        text = _decoded(fields, data)
        source = {"type": "text", "media_type": "text/plain", "data": text}
    else:
        raise fields.wrong("file_data", f"must be a PDF or a text, not {media_type}")
    title = fields.text("filename", "")
    return {"type": "document", "source": source, **({"title": title} if title else {})}


def _data_url(fields: Fields, name: str) -> tuple[str, str]:
    """The media type of what is in a data URL (RFC 2397), and its base64."""
    head, _, data = fields.text(name).partition(",")
    media_type, *options = head.removeprefix("data:").split(";")
    if not head.startswith("data:") or "base64" not in options or not media_type:
        raise fields.wrong(name, "must be a URL of the form data:TYPE;base64,DATA")
    return media_type.lower(), data


def _decoded(fields: Fields, data: str) -> str:
    try:
        return b64decode(data, validate=True).decode()
    except ValueError:
        raise fields.wrong("file_data", "must be UTF-8 text in base64") from None


def call_block(fields: Fields, id_: str) -> Block:
    """A call of a function by name and arguments, which are an object as JSON."""
    fields.pass_over("parsed_arguments")  # what OpenAI's SDK made of them
    arguments = fields.text("arguments")
    try:
        given = orjson.loads(arguments or "{}")
    except orjson.JSONDecodeError:
        given = None
    if not isinstance(given, dict):
        raise fields.wrong("arguments", "must be an object, written as JSON")
    return {"type": "tool_use", "id": id_, "name": fields.text("name"), "input": given}


def tool(function: Fields) -> Tool:
    described = function.text("description", "")
    schema = function.json("parameters", {})
    strict = function.flag("strict", False)
    return {
        "name": function.text("name"),
        **({"description": described} if described else {}),
        "input_schema": {"type": "object", **schema},
        **({"strict": True} if strict else {}),
    }


def tool_choice(
    fields: Fields, tools: Sequence[Tool], *, named_in: str = ""
) -> ToolChoice | None:
    """What `tool_choice` and `parallel_tool_calls` say.

    A choice of one function names it, or has an object `named_in` that does.
    """
    parallel = fields.flag("parallel_tool_calls", True)
    if isinstance(fields.any("tool_choice", None), dict):
        choice = _named(fields.object("tool_choice"), tools, named_in)
    else:
        told = fields.choice("tool_choice", *_CHOICES, default="auto")
        choice = {"type": _CHOICES[told]}
    if choice["type"] == "any" and not tools:
        raise fields.wrong("tool_choice", "needs tools to choose from")
    if not parallel and choice["type"] != "none":
        choice["disable_parallel_tool_use"] = True
    return choice if tools and choice != {"type": "auto"} else None


def _named(choice: Fields, tools: Iterable[Tool], named_in: str) -> ToolChoice:
    choice.choice("type", "function")
    inner = choice.object(named_in) if named_in else choice
    name = inner.text("name")
    if all(tool["name"] != name for tool in tools):
        raise inner.wrong("name", "is not the name of one of the tools")
    inner.finish()
    choice.finish()
    return {"type": "tool", "name": name}


def json_schema(fields: Fields) -> OutputFormat:
    """A schema that the answer must fit; its description is part of what it says."""
    described = fields.text("description", "")
    schema = fields.json("schema")
    fields.flag("strict", False)  # an answer of a provider that can do this fits anyway
    if described:
        schema = {"description": described, **schema}
    return {"type": "json_schema", "name": fields.text("name"), "schema": schema}


def length(limit: int | None, effort: str | None) -> tuple[int, Thinking | None]:
    """How much a model may write, its thinking included; and how it thinks.

    Thinking takes no more than half of a limit. Half of a small one is less than any
    model takes as a budget, so there is no thinking then.
    """
    if effort is None:
        return limit or _USUAL_TOKENS, None
    if effort == "none":
        return limit or _USUAL_TOKENS, {"type": "disabled"}
    budget = _BUDGETS[effort]
    if limit is None:
        limit = _USUAL_TOKENS + budget
    else:
        budget = min(budget, limit // 2)
    if budget < _LEAST_BUDGET:
        return limit, None
    return limit, {"type": "enabled", "budget_tokens": budget}


def refuse_all(fields: Fields, names: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse each of these, but for values that say nothing."""
    for name, nothing in names.items():
        fields.refuse(name, UNSUPPORTED, but=nothing)


def no_parts(fields: Fields, name: str) -> InvalidFieldError:
    return fields.wrong(name, "must be a string or a list of parts, not an empty one")
