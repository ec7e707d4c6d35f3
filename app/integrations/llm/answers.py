"""Answers that come whole, as JSON: embeddings, counts of tokens."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import orjson

from app.core.http1 import Response
from app.integrations.llm.base import ProviderError, ProviderStreamBrokenError
from app.integrations.llm.http import Http, body_of

MOST_ANSWER = 64 * 2**20
"""Bytes. It takes the vectors of 512 texts at 4096 numbers of 30 characters each."""


async def ask(
    http: Http,
    url: str,
    *,
    who: str,
    setting: str,
    headers: Mapping[str, str],
    body: bytes,
    refusal: Callable[[Response, bytes], ProviderError],
) -> tuple[Any, Mapping[str, str]]:
    """Send a call; gives what its answer holds, and the answer's headers."""
    async with http.request(
        "POST", url, setting=setting, headers=headers, body=body
    ) as response:
        if response.status != HTTPStatus.OK:
            raise refusal(response, await body_of(response))
        answer = await response.read(MOST_ANSWER)
        if not response.complete:
            raise ProviderStreamBrokenError(f"{who} sent too long an answer.")
    with readable(who):
        return orjson.loads(answer), response.headers


@contextmanager
def readable(who: str) -> Iterator[None]:
    """Raises ProviderStreamBrokenError where an answer is not of the shape we read."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ProviderStreamBrokenError(
            f"{who} sent an answer that we cannot read."
        ) from error
