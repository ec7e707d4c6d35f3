"""Models behind OpenAI's chat completions API: OpenAI's own, vLLM, Ollama and others.

Reference: "Chat completions", "Streaming events" and "Create embeddings" in OpenAI's
API documentation. Other servers rerank, too, by an endpoint that is Cohere's: vLLM's
documentation has it as "Re-rank API".
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from dataclasses import replace
from functools import cached_property
from http import HTTPStatus
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
    joined,
)
from app.integrations.llm.blocks import rejected_field
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.chat_completions import calling, chat_messages, output
from app.integrations.llm.embeddings import Embedded, EmbedRequest, embedded
from app.integrations.llm.forwarding import Outgoing, Spoken, parts_of, whole_of
from app.integrations.llm.http import (
    Http,
    body_of,
    drain,
    retry_after,
)
from app.integrations.llm.messages_api import effort_of
from app.integrations.llm.models import ModelList, fetch_json
from app.integrations.llm.openai_chunks import ChunkReader
from app.integrations.llm.openai_errors import refusal_of
from app.integrations.llm.reranking import (
    Reranked,
    RerankRequest,
    estimate_pairs,
    reranked,
)
from app.integrations.llm.reranking import body_of as rerank_body_of
from app.integrations.llm.sse import SseReader

OPENAI = "https://api.openai.com/v1"

MOST_INPUTS = 128
"""Of a call for embeddings. OpenAI takes 2048, but then one answer has up to 100 MB."""


class OpenAIProvider:
    """`openai/...`: whatever OPENAI_BASE_URL or OPENAI_API_KEY stand for."""

    name = "openai"
    speaks: ClassVar[Spoken] = "chat_completions"

    def __init__(self, models: ModelSettings, catalogue: Catalogue, http: Http) -> None:
        self._settings = models
        self._catalogue = catalogue
        self._http = http
        self._base = models.openai_base_url.rstrip("/") or OPENAI
        self._who = self._base.partition("://")[2].partition("/")[0].rpartition("@")[2]
        self._own = self._base == OPENAI
        self._list = ModelList(
            self._who, self._ask_models, patience=models.connect_seconds
        )

    @property
    def missing(self) -> str | None:
        if self._settings.openai_base_url or self._settings.openai_api_key:
            return None
        return (
            "Set OPENAI_API_KEY for OpenAI's own models, or OPENAI_BASE_URL (such as "
            "http://localhost:8001/v1) for a server that speaks its API."
        )

    async def models(self) -> list[ModelInfo]:
        """Those of OPENAI_MODELS, else those the server lists; empty where it fails."""
        if self.missing:
            return []
        if self._named:
            return self._named
        return await self._list.get()

    async def stream(self, request: ChatRequest) -> AsyncIterator[ProviderEvent]:
        if self.missing:
            raise ProviderNotConfiguredError(self.missing)
        events, reply = SseReader(), ChunkReader(self._who, request)
        async with self._http.request(
            "POST",
            f"{self._base}/chat/completions",
            setting="OPENAI_BASE_URL",
            headers=self._headers(),
            body=orjson.dumps(self._body(request)),
        ) as response:
            if response.status != HTTPStatus.OK:
                raise self._refusal(response, await body_of(response))
            yield reply.usage_so_far()
            async for chunk in response.parts():
                for event in joined(reply.read(events.feed(chunk))):
                    yield event
                if reply.stopped:
                    await drain(response)
                    return
            for event in reply.read(events.close()):
                yield event
        reply.end()

    def forward(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> AsyncGenerator[bytes]:
        del betas  # there are none
        options = {**(body.get("stream_options") or {}), "include_usage": True}
        sent = {**body, "model": model, "stream_options": options}
        return parts_of(self._http, self._outgoing(sent))

    def forward_whole(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> Awaitable[bytes]:
        del betas
        return whole_of(self._http, self._outgoing({**body, "model": model}))

    def _outgoing(self, sent: Mapping[str, Any]) -> Outgoing:
        if self.missing:
            raise ProviderNotConfiguredError(self.missing)
        return Outgoing(
            f"{self._base}/chat/completions",
            "OPENAI_BASE_URL",
            self._headers(),
            orjson.dumps(sent),
            self._refusal,
        )

    def most_inputs(self, model: str) -> int:
        del model  # of any
        return MOST_INPUTS

    async def embed(self, request: EmbedRequest) -> Embedded:
        asked: dict[str, Any] = {"model": request.model, "input": request.inputs}
        if request.dimensions is not None:
            asked["dimensions"] = request.dimensions
        answer = await self._ask("embeddings", asked)
        with readable(self._who):
            told = sorted(answer["data"], key=lambda one: one["index"])
            tokens = (answer.get("usage") or {}).get("prompt_tokens")
            rows = [one["embedding"] for one in told]
            return embedded(request, self._who, rows, tokens)

    def rerank_tokens(self, request: RerankRequest) -> int:
        return estimate_pairs(request)

    async def rerank(self, request: RerankRequest) -> Reranked:
        asked = {"model": request.model, **rerank_body_of(request)}
        answer = await self._ask("rerank", asked)
        with readable(self._who):
            tokens = (answer.get("usage") or {}).get("total_tokens")
            return reranked(request, self._who, answer["results"], tokens)

    async def _ask(self, action: str, asked: Mapping[str, Any]) -> Any:
        """What a whole answer holds."""
        if self.missing:
            raise ProviderNotConfiguredError(self.missing)
        answer, _ = await ask(
            self._http,
            f"{self._base}/{action}",
            who=self._who,
            setting="OPENAI_BASE_URL",
            headers=self._headers(),
            body=orjson.dumps(asked),
            refusal=self._refusal,
        )
        return answer

    async def close(self) -> None:
        await self._http.close()

    def _refusal(self, response: Response, body: bytes) -> ProviderError:
        wait = retry_after(response.headers)
        return refusal_of(self._who, response.status, body, wait)

    def _headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/json"}
        if key := self._settings.openai_api_key:
            headers["Authorization"] = f"Bearer {key.get_secret_value()}"
        return headers

    def _body(self, request: ChatRequest) -> dict[str, Any]:
        # OpenAI's reasoning models refuse the older name, most other servers know
        # only that.
        limit = "max_completion_tokens" if self._own else "max_tokens"
        return {
            "model": request.model,
            "messages": chat_messages(request, self._who, takes_files=self._own),
            limit: request.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            **calling(request, self._who),
            **output(request),
            **self._reasoning(request),
            **self._top_k(request),
        }

    def _reasoning(self, request: ChatRequest) -> dict[str, Any]:
        """How much to think, as an effort; of other servers' models we know nothing."""
        if (thinking := request.thinking) is None:
            return {}
        if self._own and not self._may_think(request.model):
            if thinking["type"] == "enabled":
                raise rejected_field("thinking", request.model)
            return {}
        if thinking["type"] == "disabled":
            return {"reasoning_effort": "none"}
        effort = effort_of(thinking)
        return {"reasoning_effort": effort} if effort else {}

    def _may_think(self, model: str) -> bool:
        """Whether the catalogue knows the model as one that thinks, or not at all."""
        info = self._catalogue.current(self._catalogue.info(f"{self.name}/{model}"))
        known = self._catalogue.entry_name(info.name) is not None
        return "thinking" in info.capabilities or not known

    def _top_k(self, request: ChatRequest) -> dict[str, Any]:
        """OpenAI itself has no such parameter; vLLM, Ollama and others have."""
        if request.top_k is None:
            return {}
        if self._own:
            raise rejected_field("top_k", self._who)
        return {"top_k": request.top_k}

    @cached_property
    def _named(self) -> list[ModelInfo]:
        return [self._info({"id": name}) for name in self._settings.openai_models]

    async def _ask_models(self) -> list[ModelInfo]:
        answer = await fetch_json(
            self._http,
            "GET",
            f"{self._base}/models",
            setting="OPENAI_BASE_URL",
            headers=self._headers(),
        )
        listed = [self._info(model) for model in answer["data"]]
        if self._own:  # It lists models for sound and pictures, too.
            known = self._catalogue.names(self.name)
            listed = [m for m in listed if m.name in known]
            listed.sort(key=lambda m: known.index(m.name))
        return listed

    def _info(self, model: Mapping[str, Any]) -> ModelInfo:
        """A listed model; vLLM tells its context window."""
        info = self._catalogue.info(f"{self.name}/{model['id']}")
        window = model.get("max_model_len")
        return replace(info, context_window=window) if window else info
