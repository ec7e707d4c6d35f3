"""Which of a client's betas go on to Bedrock.

A client that speaks to us as to Anthropic asks for betas that Anthropic alone knows;
for one of those Bedrock refuses the whole call, and does not say which it was. What a
beta is needed for it refuses by name where the body holds that: so nothing is dropped
in silence where a beta is left out.
"""

import re
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import TypeVar

import structlog

from app.integrations.llm.base import ProviderRejectedError
from app.integrations.llm.forwarding import beta_list

_KNOWN = frozenset(
    {
        "computer-use-2024-10-22",
        "computer-use-2025-01-24",
        "context-1m-2025-08-07",
        "context-management-2025-06-27",
        "dev-full-thinking-2025-05-14",
        "effort-2025-11-24",
        "interleaved-thinking-2025-05-14",
        "output-128k-2025-02-19",
        "token-efficient-tools-2025-02-19",
        "tool-examples-2025-10-29",
        "tool-search-tool-2025-10-19",
    }
)
"""Those that other gateways send there; AWS's own list was not read. A model may take
more of them, or fewer."""

_REFUSED = re.compile("invalid beta flag", re.IGNORECASE)
_MOST_REMEMBERED = 1000
_log = structlog.get_logger(__name__)

T = TypeVar("T")


class Betas:
    def __init__(self) -> None:
        self._taken: dict[tuple[str, str], str] = {}

    def taken(self, model: str, betas: str) -> str:
        """What is left of them, as far as that model has refused them."""
        return self._taken.get((model, betas), betas)

    async def tried(
        self, model: str, betas: str, call: Callable[[str], AsyncGenerator[T]]
    ) -> AsyncGenerator[T]:
        """The items of a call with these betas, those that Bedrock knows, or none."""
        wanted = self.taken(model, betas)
        while True:
            try:
                async with aclosing(call(wanted)) as items:
                    async for item in items:
                        yield item
            except ProviderRejectedError as error:
                if not wanted or not _REFUSED.search(error.reason):
                    raise
            else:
                return
            wanted = _fewer(wanted)
            if len(self._taken) >= _MOST_REMEMBERED:
                self._taken.clear()
            self._taken[model, betas] = wanted
            _log.info("bedrock_betas_refused", model=model, kept=wanted)


def _fewer(betas: str) -> str:
    asked = beta_list(betas)
    known = [beta for beta in asked if beta in _KNOWN]
    return "" if known == asked else ",".join(known)
