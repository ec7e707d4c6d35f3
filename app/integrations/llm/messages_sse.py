"""The Messages API over server-sent events: Anthropic's own, and Bedrock's Mantle."""

from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from typing import Any

import orjson

from app.core.http1 import Response
from app.integrations.llm.base import (
    ProviderError,
    ProviderEvent,
    ProviderStreamBrokenError,
    joined,
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
            for event in joined(reply.read(_parsed(events.feed(chunk), who))):
                yield event
            if reply.stopped:
                await drain(response)
                return
        for event in reply.read(_parsed(events.close(), who)):
            yield event
    reply.end()


def _parsed(datas: Iterable[bytes], who: str) -> Iterator[Any]:
    try:
        for data in datas:
            yield orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise ProviderStreamBrokenError(
            f"{who} sent an event that we cannot read."
        ) from error
