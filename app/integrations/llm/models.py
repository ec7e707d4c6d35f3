"""The list of models that a server tells, asked for seldom."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson
import structlog

from app.integrations.llm.base import ModelInfo, ProviderError
from app.integrations.llm.http import Http, body_of, by_status

log = structlog.get_logger(__name__)

LIST_SECONDS = 60.0
"""How long a list of models is believed."""

FAILURE_SECONDS = 5.0
"""How long a failure to get the list is."""

MAX_LIST = 8 * 2**20
"""Bytes of a list of models; what is cut off cannot be read."""


class ModelList:
    """What `ask` told last; many who want it at once ask once.

    That goes on where who began it has left: else a slow server's list would never
    come, if all clients are less patient than we are.

    Where asking fails the list is empty, and nobody asks again for `after_failure`
    seconds. `failed` tells whether that is so; only of a server that is `expected` to
    answer the log warns.
    """

    def __init__(
        self,
        who: str,
        ask: Callable[[], Awaitable[Sequence[ModelInfo]]],
        *,
        patience: float,
        after_failure: float = FAILURE_SECONDS,
        expected: bool = True,
    ) -> None:
        self._who = who
        self._ask = ask
        self._patience = patience
        self._after_failure = after_failure
        self._log = log.warning if expected else log.debug
        self._listed: list[ModelInfo] = []
        self._until = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self.failed = False

    async def get(self) -> list[ModelInfo]:
        if time.monotonic() >= self._until:
            if self._renewal is None or self._renewal.done():
                self._renewal = asyncio.create_task(self._renew())
            await asyncio.shield(self._renewal)
        return self._listed

    async def _renew(self) -> None:
        believed = LIST_SECONDS
        try:
            async with asyncio.timeout(self._patience):
                self._listed = list(await self._ask())
            self.failed = False
        except (
            ProviderError,
            TimeoutError,
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
        ) as error:
            self._log("models_not_listed", provider=self._who, reason=str(error))
            self._listed, self.failed = [], True
            believed = self._after_failure
        self._until = time.monotonic() + believed


async def fetch_json(
    http: Http,
    method: str,
    url: str,
    *,
    setting: str,
    headers: dict[str, str],
    body: bytes | None = None,
) -> Any:
    """A whole answer; raises by the status of a refusal, ValueError for no JSON."""
    async with http.request(
        method, url, setting=setting, headers=headers, body=body
    ) as response:
        if not response.ok:
            raise by_status(response.status)(f"status {response.status}")
        return orjson.loads(await body_of(response, MAX_LIST))
