"""What clients call besides models that talk: embeddings, counts, and the list."""

import asyncio
from collections.abc import Mapping
from typing import Any

from app.core.exceptions import AppError, NotFoundError
from app.core.metrics import GATEWAY_CALLS, quick
from app.integrations.llm.counting import TokenCounter
from app.integrations.llm.embeddings import estimate_inputs
from app.integrations.llm.routes import as_one
from app.integrations.llm.routing import Router
from app.integrations.llm.tokens import estimate_input
from app.schemas.model import ModelRead
from app.services import embedding
from app.services import model as models
from app.services.authorization import Principal
from app.services.chat.books import Books
from app.services.gateway import embeddings
from app.services.gateway.body import model_name
from app.services.gateway.errors import told
from app.services.gateway.messages import MESSAGES

_calls = quick(GATEWAY_CALLS)


class Asides:
    def __init__(self, *, router: Router, books: Books) -> None:
        self._router = router
        self._books = books

    async def embeddings(self, principal: Principal, body: Mapping[str, Any]) -> bytes:
        """OpenAI's answer; raises AppError."""
        ask = embeddings.read(body)
        name, tokens = ask.request.model, estimate_inputs(ask.request)
        try:
            candidates = await self._router.candidates(
                name, tokens=tokens, able="embeddings"
            )
            account = await self._books.reserve(
                principal.user_id,
                as_one(name, [c.model for c in candidates]),
                kind="gateway",
                input_tokens=tokens,
                output_tokens=0,
                key=principal.key,
                asked=name,
            )
            status = "error"
            try:
                made = await embedding.embedded(
                    self._router, account, candidates, ask.request, tokens=tokens
                )
                status = "complete"
            except asyncio.CancelledError:
                status = "stopped"
                raise
            finally:
                _calls(account.model.provider, status).inc()
        except AppError as error:
            raise told(error) from error
        return embeddings.write(made, name, ask.encoding)

    async def models(self, principal: Principal) -> list[ModelRead]:
        """Those that the caller may call now, routes first."""
        allows = await self._books.credits.allowed(principal.user_id, principal.key)
        return [
            model
            for model in await models.listing(self._router)
            if model.available and allows(model.name)
        ]

    async def model(self, principal: Principal, name: str) -> ModelRead:
        """Raises NotFoundError for one that the list does not have."""
        for model in await self.models(principal):
            if model.name == name:
                return model
        raise NotFoundError(f"There is no model {name!r}.", code="unknown_model")

    async def count_tokens(
        self, principal: Principal, body: Mapping[str, Any], *, betas: str
    ) -> int:
        """Of a request in Anthropic's format; raises AppError.

        It is the provider's figure where its servers count, else our estimate.
        """
        name = model_name(body)
        try:
            await self._books.credits.require_allowed(
                principal.user_id, name, principal.key
            )
            candidate = (await self._router.candidates(name))[0]
            provider, model = candidate.provider, candidate.model
            if isinstance(provider, TokenCounter):
                usage = await provider.count_body(model.id, body, betas=betas)
                return usage.input_tokens
            # What is counted has no answer, whose length the format demands.
            ask = MESSAGES.read({"max_tokens": 1, **body})
            return estimate_input(ask.request)
        except AppError as error:
            raise told(error) from error
