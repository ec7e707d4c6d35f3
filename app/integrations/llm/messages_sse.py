"""The Messages API over server-sent events: Anthropic's own, and Bedrock's Mantle."""

from collections.abc import AsyncGenerator, Callable, Mapping
from http import HTTPStatus

import orjson

from app.core.http1 import Response
from app.integrations.llm.base import (
    ProviderError,
    ProviderEvent,
    ProviderStreamBrokenError,
    Stop,
)
from app.integrations.llm.http import Http, body_of, drain
from app.integrations.llm.messages_api import MessagesReader
from app.integrations.llm.sse import SseReader

VERSION = "2023-06-01"
"""Of the API, in the header `anthropic-version`."""

Refusal = Callable[[Response, bytes], ProviderError]


async def stream_messages(
    http: Http,
    url: str,
    *,
    who: str,
    setting: str,
    headers: Mapping[str, str],
    body: bytes,
    reply: MessagesReader,
    refusal: Refusal,
) -> AsyncGenerator[ProviderEvent]:
    events = SseReader()
    async with http.request(
        "POST", url, setting=setting, headers=headers, body=body
    ) as response:
        if response.status != HTTPStatus.OK:
            raise refusal(response, await body_of(response))
        async for chunk in response.parts():
            for data in events.feed(chunk):
                event = _read(reply, data, who)
                if event is not None:
                    yield event
                if type(event) is Stop:
                    await drain(response)
                    return
        for data in events.close():
            event = _read(reply, data, who)
            if event is not None:
                yield event
    reply.end()


def _read(reply: MessagesReader, data: bytes, who: str) -> ProviderEvent | None:
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ProviderStreamBrokenError(
            f"{who} sent an event that we cannot read."
        ) from error
    return reply.read(event)
