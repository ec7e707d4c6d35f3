"""What every wire format that clients speak can do."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from app.integrations.llm.base import ChatRequest, ProviderEvent
from app.integrations.llm.forwarding import Spoken

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ask:
    """What a client's body asks for, whatever its format.

    `request.model` is the name that the client wrote. `body` is kept for what an answer
    repeats of it.
    """

    request: ChatRequest
    body: Mapping[str, Any]
    stream: bool = False
    include_usage: bool = True
    """Whether a stream tells its usage: OpenAI's clients ask for it."""


class Writer(Protocol):
    """Writes one answer in the client's format, from a provider's events.

    A stream is the frames of `write` for each event, in their order, and `fail` where
    the provider fails after the first. An answer that is not streamed is `whole`, after
    the last event; `write` is called for each then, too, and what it gives is dropped.
    """

    def write(self, event: ProviderEvent) -> bytes:
        """The frames that an event leads to; often none. `Stop` gives the last ones."""

    def fail(self, problem: Mapping[str, Any]) -> bytes:
        """The frames that end a stream with an error: an RFC 9457 problem's members."""

    def whole(self) -> Json: ...


class Format(Protocol):
    """A wire format; its parts are pure functions of what is given."""

    spoken: Spoken | None
    """As providers call it that speak it, too."""

    def read(self, body: Mapping[str, Any]) -> Ask:
        """Raises InvalidFieldError for what is wrong, or cannot be translated."""

    def writer(self, ask: Ask, model: str) -> Writer:
        """For one answer by that model."""

    def error(self, problem: Mapping[str, Any]) -> Json:
        """The body of an error, from an RFC 9457 problem's members."""
