"""Estimates of token counts, where a provider has not told its own."""

from collections.abc import Iterable

from app.integrations.llm.base import ChatRequest

_MESSAGE_OVERHEAD = 4
"""Tokens for a message's role and borders."""


def estimate_tokens(text: str) -> int:
    """A token for every 4 bytes of UTF-8, rounded up.

    That is the usual rule of 4 characters for English; counting bytes keeps it from
    being several times too low for scripts whose characters are tokens of their own.
    """
    tally = TokenTally()
    tally.add(text)
    return tally.tokens


def estimate_input(request: ChatRequest) -> int:
    """The tokens that a request sends; of its blocks, only text is counted."""
    return estimate_tokens(request.system) + sum(
        _MESSAGE_OVERHEAD + sum(map(estimate_tokens, _texts(message.content)))
        for message in request.messages
    )


class TokenTally:
    """The same estimate for a text that comes in pieces, which are not kept."""

    def __init__(self) -> None:
        self._size = 0

    def add(self, text: str) -> None:
        self._size += len(text if text.isascii() else text.encode("utf-8", "replace"))

    @property
    def tokens(self) -> int:
        return (self._size + 3) // 4


def _texts(content: Iterable[dict[str, object]]) -> Iterable[str]:
    return (str(block["text"]) for block in content if block.get("type") == "text")
