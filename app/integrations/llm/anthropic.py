"""Claude by Anthropic itself: the Messages API over server-sent events.

Reference: "Messages", "Count tokens in a Message", "Models" and "Errors" in Anthropic's
API documentation.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import aclosing
from dataclasses import replace
from functools import cached_property
from typing import Any, ClassVar

import orjson

from app.core.config import ModelSettings
from app.core.http1 import Response
from app.integrations.llm.answers import ask, readable
from app.integrations.llm.base import (
    ChatRequest,
    ModelInfo,
    ProviderError,
    ProviderEvent,
    ProviderNotConfiguredError,
    Usage,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.forwarding import Outgoing, Spoken, parts_of, whole_of
from app.integrations.llm.http import Http, retry_after
from app.integrations.llm.messages_api import (
    MessagesReader,
    countable,
    message_body,
    refusal,
)
from app.integrations.llm.messages_sse import VERSION, stream_messages
from app.integrations.llm.models import ModelList, fetch_json

ANTHROPIC = "https://api.anthropic.com"

_WHO = "Anthropic"
_SETTING = "ANTHROPIC_BASE_URL"
_CAPABILITIES = {"image_input": "vision", "pdf_input": "documents"}


class AnthropicProvider:
    """`anthropic/...`: the models that ANTHROPIC_API_KEY may use."""

    name = "anthropic"
    speaks: ClassVar[Spoken] = "messages"

    def __init__(self, models: ModelSettings, catalogue: Catalogue, http: Http) -> None:
        self._settings = models
        self._catalogue = catalogue
        self._http = http
        base = models.anthropic_base_url.rstrip("/") or ANTHROPIC
        self._base = base.removesuffix("/v1")
        self._list = ModelList(_WHO, self._ask, patience=models.connect_seconds)

    @property
    def missing(self) -> str | None:
        if self._settings.anthropic_api_key or self._settings.anthropic_base_url:
            return None
        return "Set ANTHROPIC_API_KEY to a key of Anthropic's console."

    async def models(self) -> list[ModelInfo]:
        """Those of ANTHROPIC_MODELS, else those listed; empty where that fails."""
        if self.missing:
            return []
        return self._named or await self._list.get()

    async def stream(self, request: ChatRequest) -> AsyncIterator[ProviderEvent]:
        if self.missing:
            raise ProviderNotConfiguredError(self.missing)
        known = self._catalogue.info(f"{self.name}/{request.model}")
        info = self._catalogue.current(known)
        # Anthropic takes the marks of every model, known to the catalogue or not.
        able = info.capabilities | {"prompt_caching"}
        message, cut = message_body(request, capabilities=able)
        events = stream_messages(
            self._http,
            f"{self._base}/v1/messages",
            who=_WHO,
            setting=_SETTING,
            headers=self._headers(),
            body=orjson.dumps({"model": request.model, **message, "stream": True}),
            reply=MessagesReader(_WHO, request, repeated=cut),
            refusal=_refused,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    def forward(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> AsyncGenerator[bytes]:
        return parts_of(self._http, self._outgoing(model, body, betas))

    def forward_whole(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> Awaitable[bytes]:
        return whole_of(self._http, self._outgoing(model, body, betas))

    def _outgoing(self, model: str, body: Mapping[str, Any], betas: str) -> Outgoing:
        if self.missing:
            raise ProviderNotConfiguredError(self.missing)
        return Outgoing(
            f"{self._base}/v1/messages",
            _SETTING,
            self._headers() | ({"anthropic-beta": betas} if betas else {}),
            orjson.dumps({**body, "model": model}),
            _refused,
        )

    async def count_body(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> Usage:
        if self.missing:
            raise ProviderNotConfiguredError(self.missing)
        answer, _ = await ask(
            self._http,
            f"{self._base}/v1/messages/count_tokens",
            who=_WHO,
            setting=_SETTING,
            headers=self._headers() | ({"anthropic-beta": betas} if betas else {}),
            body=orjson.dumps({**countable(body), "model": model}),
            refusal=_refused,
        )
        with readable(_WHO):
            return Usage(int(answer["input_tokens"]), 0)

    async def close(self) -> None:
        await self._http.close()

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "anthropic-version": VERSION}
        if key := self._settings.anthropic_api_key:
            headers["x-api-key"] = key.get_secret_value()
        return headers

    @cached_property
    def _named(self) -> list[ModelInfo]:
        names = self._settings.anthropic_models
        return [self._catalogue.info(f"{self.name}/{name}") for name in names]

    async def _ask(self) -> list[ModelInfo]:
        """The catalogue's first, in its order; then what it does not know yet."""
        answer = await fetch_json(
            self._http,
            "GET",
            f"{self._base}/v1/models?limit=1000",
            setting=_SETTING,
            headers=self._headers(),
        )
        listed = [m for m in answer["data"] if m.get("lifecycle") != "retired"]
        known = self._catalogue.names(self.name)
        infos = [self._info(model) for model in listed]
        order = {
            info.name: known.index(entry)
            for info in infos
            if (entry := self._catalogue.entry_name(info.name))
        }
        return sorted(infos, key=lambda info: order.get(info.name, len(known)))

    def _info(self, model: Mapping[str, Any]) -> ModelInfo:
        """What the catalogue says, and of a model that it does not know, the list."""
        info = self._catalogue.info(f"{self.name}/{model['id']}")
        if self._catalogue.entry_name(info.name):
            return info
        told = model.get("capabilities") or {}
        able = {
            ours
            for theirs, ours in _CAPABILITIES.items()
            if (told.get(theirs) or {}).get("supported")
        }
        return replace(
            info,
            context_window=model.get("max_input_tokens") or info.context_window,
            max_output_tokens=model.get("max_tokens") or info.max_output_tokens,
            capabilities=frozenset({"text", "tools", "prompt_caching", *able}),
        )


def _refused(response: Response, body: bytes) -> ProviderError:
    wait = retry_after(response.headers)
    return refusal(_WHO, response.status, body, wait)
