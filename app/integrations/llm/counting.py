"""Counting what a request takes of a model, without running it."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from app.integrations.llm.base import ChatRequest, ModelInfo, Provider, Usage
from app.integrations.llm.messages_api import message_body
from app.integrations.llm.tokens import estimate_input


@runtime_checkable
class TokenCounter(Protocol):
    """A provider of Claude, whose servers count by the Messages API's form."""

    async def count_body(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> Usage:
        """What a client's body takes, as it is; `betas` is `anthropic-beta`.

        `model` is the provider's own id. Raises ProviderError.
        """


async def count_tokens(
    provider: Provider, model: ModelInfo, request: ChatRequest
) -> Usage:
    """What a request takes: the provider's figure, or our estimate."""
    if not isinstance(provider, TokenCounter):
        return Usage(estimate_input(request), 0, estimated=True)
    body, _ = message_body(request, capabilities=model.capabilities)
    return await provider.count_body(request.model, body)
