"""Calls in a provider's own wire format, for clients that speak it too."""

from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any, Literal, Protocol

from app.core.http1 import Response
from app.integrations.llm.base import (
    ProviderError,
    ProviderStreamBrokenError,
)
from app.integrations.llm.http import Http, body_of

Spoken = Literal["chat_completions", "messages"]
"""OpenAI's chat completions, and Anthropic's Messages API."""

MOST_ANSWER = 64 * 2**20
"""Bytes of an answer that is not streamed."""


class Forwarder(Protocol):
    """A provider whose servers take a client's body nearly as it is."""

    speaks: Spoken

    def forward(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> AsyncGenerator[bytes]:
        """The answer's bytes as they come: one piece, or server-sent events.

        Of the body its model becomes the provider's own id, and a stream of chat
        completions is asked for its usage; `betas` is the header `anthropic-beta`.
        Raises ProviderError where the call is not taken; what goes wrong in a stream's
        middle is in its events.
        """


async def exchange(
    http: Http,
    url: str,
    *,
    setting: str,
    headers: Mapping[str, str],
    body: bytes,
    stream: bool,
    refusal: Callable[[Response, bytes], ProviderError],
) -> AsyncGenerator[bytes]:
    """Send a call, and hand on its answer."""
    async with http.request(
        "POST", url, setting=setting, headers=headers, body=body
    ) as response:
        if not response.ok:
            raise refusal(response, await body_of(response))
        if stream:
            async for part in response.parts():
                yield part
        else:
            answer = await response.read(MOST_ANSWER)
            if not response.complete:
                raise ProviderStreamBrokenError("The answer is too long.")
            yield answer


def without_stream(body: Mapping[str, Any]) -> dict[str, Any]:
    """For servers whose address says whether they stream."""
    return {k: v for k, v in body.items() if k not in ("model", "stream")}


def beta_list(betas: str) -> list[str]:
    return [name for part in betas.split(",") if (name := part.strip())]
