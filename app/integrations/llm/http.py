"""The process's one pool of connections to model providers, and what goes wrong there.

Network failures come out as `ProviderError`s. What a provider answers is classified by
the provider's own names first; `by_status` is for answers that have none.
"""

import asyncio
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import structlog

from app.core import http1
from app.core.config import ModelSettings
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
from app.integrations.llm.idle import note_idle

log = structlog.get_logger(__name__)

MAX_ERROR_BYTES = 64 * 1024
"""Of the body of an error, no more is read."""

DRAIN_SECONDS = 0.1

_STATUSES: Mapping[int, type[ProviderError]] = {
    401: ProviderAuthError,
    403: ProviderAuthError,
    408: ProviderTimeoutError,
    429: ProviderThrottledError,
    504: ProviderTimeoutError,
}


class Http:
    """The process's pool of connections, opened by what is asked.

    It bounds how long connecting takes and how long a server may send nothing, but
    not how long an answer takes.
    """

    def __init__(self, models: ModelSettings) -> None:
        self._client = http1.Client(
            connect_seconds=models.connect_seconds, stall_seconds=models.stall_seconds
        )

    def request(
        self,
        method: str,
        url: str,
        *,
        setting: str,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> "_Exchange":
        """An `async with` sends a request; network failures in it are `ProviderError`s.

        The URL goes out as it is written, since a signature may cover its quoting.
        `setting` is the variable to check where nobody answers there. Leaving the
        block before the body's end closes the connection.
        """
        address = _address(url, setting)
        sent = self._client.request(method, address, headers=headers, body=body)
        return _Exchange(sent, address.host, setting)

    @property
    def connections(self) -> int:
        return self._client.connections

    async def close(self) -> None:
        """Any provider that shares the pool may do this; a request opens it again."""
        await self._client.close()


class _Exchange:
    __slots__ = ("_host", "_sent", "_setting")

    def __init__(self, sent: http1.Exchange, host: str, setting: str) -> None:
        self._sent = sent
        self._host = host
        self._setting = setting

    async def __aenter__(self) -> Response:
        try:
            return await self._sent.__aenter__()
        except http1.HttpError as error:
            raise self._translated(error, answered=False) from error
        except asyncio.CancelledError as error:
            if not self._sent.sent:
                note_idle(error)
            raise

    async def __aexit__(
        self, _type: object, error: BaseException | None, _traceback: object
    ) -> None:
        self._sent.end()
        if isinstance(error, http1.HttpError):
            raise self._translated(error, answered=True) from error

    def _translated(self, error: http1.HttpError, *, answered: bool) -> ProviderError:
        host = self._host
        if isinstance(error, http1.StalledError):
            return ProviderTimeoutError(f"{host} sent nothing for too long.")
        if answered:
            return ProviderStreamBrokenError(f"The connection to {host} broke off.")
        return ProviderUnavailableError(
            f"{host} cannot be reached: check {self._setting}."
        )


def _address(url: str, setting: str) -> http1.Address:
    try:
        return http1.Address.of(url)
    except ValueError as error:
        raise ProviderUnavailableError(
            f"{setting} is no address: write it as https://host[:port]/path."
        ) from error


async def body_of(response: Response, limit: int = MAX_ERROR_BYTES) -> bytes:
    """A whole body, or its first `limit` bytes."""
    return await response.read(limit)


async def drain(response: Response) -> None:
    """Read what follows a finished answer, so that the connection can serve again.

    That is mostly here already; a server that never ends its body is not waited for.
    """
    with suppress(http1.HttpError, TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in response.parts():
                pass


def by_status(status: int) -> type[ProviderError]:
    if status in _STATUSES:
        return _STATUSES[status]
    return (
        ProviderRejectedError
        if 400 <= status < 500  # noqa: PLR2004 - the class of 4xx
        else ProviderUnavailableError
    )


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that a refusal asks to wait: RFC 9110's field, or its finer kin.

    `headers` has lower-case names.
    """
    milliseconds = _number(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    told = headers.get("retry-after", "")
    seconds = _number(told)
    if seconds is None and told:
        with suppress(ValueError):
            at = parsedate_to_datetime(told)
            at = at if at.tzinfo else at.replace(tzinfo=UTC)
            seconds = max((at - datetime.now(UTC)).total_seconds(), 0)
    return seconds


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if number >= 0 and math.isfinite(number) else None


def refused(
    kind: type[ProviderError],
    who: str,
    name: str,
    message: str,
    *,
    wait: float | None = None,
) -> ProviderError:
    """The error for a provider's own error of that name; `wait` is its `retry_after`.

    What it says about credentials may name accounts: that goes to the log alone.
    """
    if kind is ProviderAuthError:
        log.warning("provider_auth_failed", provider=who, error=name, reason=message)
        return kind(f"{who} does not take this installation's credentials ({name}).")
    reason = message[:500] or "no reason given"
    return kind(f"{who} answered {name}: {reason}", retry_after=wait, reason=reason)
