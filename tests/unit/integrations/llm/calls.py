"""Calls of a provider, as the tests make and judge them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from app.integrations.llm.base import (
    Block,
    ChatMessage,
    ChatRequest,
    ProviderError,
    ProviderEvent,
    TextDelta,
    ThinkingDelta,
    Usage,
)


@dataclass
class Outcome:
    """What came of a call: its events, and the error that ended it, if one did."""

    events: list[ProviderEvent] = field(default_factory=list)
    error: ProviderError | None = None

    @property
    def text(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, TextDelta))

    @property
    def thinking(self) -> str:
        return "".join(e.text for e in self.events if isinstance(e, ThinkingDelta))

    @property
    def usages(self) -> list[Usage]:
        return [e for e in self.events if isinstance(e, Usage)]


async def outcome(stream: AsyncIterator[ProviderEvent]) -> Outcome:
    result = Outcome()
    try:
        async for event in stream:
            result.events.append(event)
    except ProviderError as error:
        result.error = error
    return result


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def user(*words: str) -> ChatMessage:
    return ChatMessage("user", [text(w) for w in words])


def assistant(*words: str) -> ChatMessage:
    return ChatMessage("assistant", [text(w) for w in words])


def ask(model: str, *messages: ChatMessage, system: str = "") -> ChatRequest:
    return ChatRequest(model, messages or (user("Go ahead."),), system)
