"""What Bedrock's two endpoints are sent, and send: frames of events, named errors."""

import binascii
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from http import HTTPStatus
from itertools import starmap
from typing import Any

import orjson

from app.core.http1 import Response
from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from app.integrations.llm.bedrock_places import ModelLackingError
from app.integrations.llm.eventstream import EventStreamReader, Header
from app.integrations.llm.forwarding import beta_list, without_stream
from app.integrations.llm.http import by_status, refused, retry_after
from app.integrations.llm.messages_api import refusal

WHO = "Bedrock"

ANTHROPIC_VERSION = "bedrock-2023-05-31"

_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"(\w+)"')
"""How an event mostly begins; its type is its name."""


_LACKING = re.compile(r"model identifier|on-demand throughput", re.IGNORECASE)
"""What AWS says of a model that a region does not have, or not by this profile."""

_ERRORS: Mapping[str, type[ProviderError]] = {
    "throttling": ProviderThrottledError,
    "toomanyrequests": ProviderThrottledError,
    "servicequotaexceeded": ProviderThrottledError,
    "modelnotready": ProviderUnavailableError,
    "modelerror": ProviderUnavailableError,
    "serviceunavailable": ProviderUnavailableError,
    "internalserver": ProviderUnavailableError,
    "internalfailure": ProviderUnavailableError,
    "modelstreamerror": ProviderStreamBrokenError,
    "modeltimeout": ProviderTimeoutError,
    "accessdenied": ProviderAuthError,
    "unrecognizedclient": ProviderAuthError,
    "invalidsignature": ProviderAuthError,
    "signaturedoesnotmatch": ProviderAuthError,
    "incompletesignature": ProviderAuthError,
    "invalidclienttokenid": ProviderAuthError,
    "missingauthenticationtoken": ProviderAuthError,
    "expiredtoken": ProviderAuthError,
    "optinrequired": ProviderAuthError,
    "validation": ProviderRejectedError,
    "resourcenotfound": ModelLackingError,
}
"""By the exception's name in lower case without its last word: `ThrottlingException`
before the answer, `throttlingException` in its middle. ModelNotReady comes with a 429
and ServiceQuotaExceeded with a 400, so the status would mislead."""


async def unframed(answer: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The same events as Anthropic itself sends them: the text of each is untouched."""
    frames = EventStreamReader()
    async with aclosing(answer) as parts:
        async for part in parts:
            events: list[bytes] = []
            try:
                datas = starmap(_data, frames.feed(part))
                events.extend(_sent_event(data) for data in datas if data is not None)
            except ProviderError:
                yield b"".join(events)  # what came before it counts
                raise
            yield b"".join(events)
    frames.close()


def _sent_event(data: bytes) -> bytes:
    found = _TYPE.match(data)
    kind = found[1] if found else str(orjson.loads(data)["type"]).encode()
    return b"event: %b\ndata: %b\n\n" % (kind, data)


def event_of(headers: Mapping[str, Header], payload: bytes) -> Mapping[str, Any]:
    data = _data(headers, payload)
    if data is None:
        return {"type": "unknown"}
    try:
        event: Mapping[str, Any] = orjson.loads(data)
    except ValueError as error:
        raise _unreadable() from error
    return event


def _data(headers: Mapping[str, Header], payload: bytes) -> bytes | None:
    """The Messages event in a frame; raises what a frame of another kind tells.

    None for a frame of a kind that we do not know.
    """
    kind = headers.get(":message-type")
    if kind == "error":
        name = str(headers.get(":error-code"))
        raise _error(name, str(headers.get(":error-message", "")), 500)
    try:
        content = orjson.loads(payload)
        if kind == "exception":
            name = str(headers.get(":exception-type"))
            raise _error(name, str(content.get("message", "")), 500)
        if headers.get(":event-type") != "chunk":
            return None
        return binascii.a2b_base64(content["bytes"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable() from error


def _unreadable() -> ProviderStreamBrokenError:
    return ProviderStreamBrokenError("Bedrock sent a frame we cannot read.")


def refusal_of(response: Response, body: bytes) -> ProviderError:
    """The error of a call that was not taken: its name is in a header or the body.

    AWS names it so; behind Mantle's door, the Messages API has names of its own.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    wait = retry_after(response.headers)
    name = response.headers.get("x-amzn-errortype") or str(answer.get("__type", ""))
    if not name and "error" in answer:
        error = refusal(WHO, response.status, body, wait)
        if response.status == HTTPStatus.NOT_FOUND:
            return ModelLackingError(error.detail)
        return error
    message = answer.get("message") or answer.get("Message") or ""
    name = name or f"status {response.status}"
    return _error(name, str(message), response.status, wait)


def _error(
    name: str, message: str, status: int, wait: float | None = None
) -> ProviderError:
    """By name, which may be wrapped: `com.amazon...#ThrottlingException:http://...`."""
    name = name.partition(":")[0].rpartition("#")[2]
    kind = _ERRORS.get(name.lower().removesuffix("exception")) or by_status(status)
    if kind is ProviderRejectedError and _LACKING.search(message):
        kind = ModelLackingError
    return refused(kind, WHO, name, message, wait=wait)


def runtime_body(body: Mapping[str, Any], betas: str) -> dict[str, Any]:
    """What `runtime` takes of a body of the Messages API."""
    asked = {"anthropic_beta": beta_list(betas)} if betas else {}
    return {"anthropic_version": ANTHROPIC_VERSION, **without_stream(body), **asked}
