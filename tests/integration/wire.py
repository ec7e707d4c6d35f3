"""Calls of the gateway as they are on the wire, in each of its formats."""

from typing import Any, Literal, get_args

from tests.grammar import anthropic_messages, openai_chat, openai_responses

Api = Literal["chat", "responses", "messages"]
APIS = get_args(Api)
PATHS: dict[Api, str] = {
    "chat": "/v1/chat/completions",
    "responses": "/v1/responses",
    "messages": "/v1/messages",
}


def body(api: Api, model: str, text: str, **fields: Any) -> dict[str, Any]:
    """A request that asks for one thing."""
    asked: Any = [{"role": "user", "content": text}]
    match api:
        case "chat":
            said: dict[str, Any] = {"messages": asked}
        case "responses":
            said = {"input": asked}
        case "messages":
            said = {"messages": asked, "max_tokens": 1000}
    return {"model": model, **said, **fields}


def ends_well(api: Api, stream: bytes, *, usage: bool = False) -> bool:
    """Whether it is a whole answer, or else one that failed.

    AssertionError where it is neither. `usage` says whether OpenAI's chat completions
    were asked for theirs.
    """
    match api:
        case "chat":
            chunks = openai_chat.parse(stream)
            return openai_chat.check(chunks, usage=usage) == "done"
        case "responses":
            return openai_responses.check(openai_responses.parse(stream)) == "completed"
        case "messages":
            events = anthropic_messages.parse(stream)
            anthropic_messages.check(events)
            return bool(events[-1]["type"] != "error")


def text_of(api: Api, stream: bytes) -> str:
    match api:
        case "chat":
            chunks = [c for c in openai_chat.parse(stream) if isinstance(c, dict)]
            choices = [choice for c in chunks for choice in c.get("choices", ())]
            return "".join(choice["delta"].get("content") or "" for choice in choices)
        case "responses":
            told = openai_responses.parse(stream)
            kind = "response.output_text.delta"
            return "".join(event["delta"] for event in told if event["type"] == kind)
        case "messages":
            events = anthropic_messages.parse(stream)
            deltas = [event["delta"] for event in events if "delta" in event]
            return "".join(delta.get("text", "") for delta in deltas)


def error_of(api: Api, answer: Any) -> dict[str, Any]:
    """The error in an answer that is one, which has that API's form."""
    if api == "messages":
        assert answer["type"] == "error"
        assert answer["error"].keys() == {"type", "message"}
    else:
        assert answer.keys() == {"error"}
        assert answer["error"].keys() == {"message", "type", "param", "code"}
    return dict(answer["error"])
