"""Calls in a provider's own wire format, for clients that speak it too."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, Literal, NamedTuple, Protocol

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
        """The server-sent events that answer a body which asks for a stream.

        They are bytes, as they come. Of the body its model becomes the provider's own
        id, and a stream of chat completions is asked for its usage; `betas` is the
        header `anthropic-beta`. Raises ProviderError where the call is not taken; what
        goes wrong in a stream's middle is in its events.
        """

    def forward_whole(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> Awaitable[bytes]:
        """The same of a body that asks for none: the JSON that answers it."""


class Outgoing(NamedTuple):
    """A call as it is sent; `setting` says where the URL comes from.

    `refusal` makes an error of an answer that is no success, and of its body.
    """

    url: str
    setting: str
    headers: Mapping[str, str]
    body: bytes
    refusal: Callable[[Response, bytes], ProviderError]

    def by(self, http: Http) -> AbstractAsyncContextManager[Response]:
        return http.request(
            "POST",
            self.url,
            setting=self.setting,
            headers=self.headers,
            body=self.body,
        )


async def parts_of(http: Http, call: Outgoing) -> AsyncGenerator[bytes]:
    """Send a call, and hand on its answer as it comes."""
    async with call.by(http) as response:
        if not response.ok:
            raise call.refusal(response, await body_of(response))
        async for part in response.parts():
            yield part


async def whole_of(http: Http, call: Outgoing) -> bytes:
    """Send a call; gives its answer."""
    async with call.by(http) as response:
        if not response.ok:
            raise call.refusal(response, await body_of(response))
        answer = await response.read(MOST_ANSWER)
        if not response.complete:
            raise ProviderStreamBrokenError("The answer is too long.")
        return answer


def without_stream(body: Mapping[str, Any]) -> dict[str, Any]:
    """For servers whose address says whether they stream."""
    return {k: v for k, v in body.items() if k not in ("model", "stream")}


def beta_list(betas: str) -> list[str]:
    return [name for part in betas.split(",") if (name := part.strip())]
