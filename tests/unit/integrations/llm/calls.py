"""Calls of a provider, as the tests make and judge them."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from app.integrations.llm.base import (
    Block,
    ChatMessage,
    ChatRequest,
    Provider,
    ProviderError,
    ProviderEvent,
    Stop,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from tests.fakes.model_server import FakeServer


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


async def sent(
    server: FakeServer, provider: Provider, request: ChatRequest
) -> dict[str, Any]:
    """The body that the server got, and took."""
    result = await outcome(provider.stream(request))

    assert result.error is None
    assert isinstance(result.events[-1], Stop)
    return dict(server.calls[-1].body)


def text(words: str) -> Block:
    return {"type": "text", "text": words}


def user(*words: str) -> ChatMessage:
    return ChatMessage("user", [text(w) for w in words])


def assistant(*words: str) -> ChatMessage:
    return ChatMessage("assistant", [text(w) for w in words])


def ask(model: str, *messages: ChatMessage, system: str = "") -> ChatRequest:
    return ChatRequest(model, messages or (user("Go ahead."),), system)
