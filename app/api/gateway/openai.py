"""OpenAI's API, as its clients call it: base URL `https://<host>/v1`."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api.gateway.answering import (
    CALLED_WITH,
    Whole,
    answer,
    body_of,
    caller,
    runtime_of,
)
from app.api.gateway.leaving import WhileWaiting
from app.services.gateway.chat_completions import CHAT_COMPLETIONS
from app.services.gateway.responses import RESPONSES

router = APIRouter(prefix="/v1", tags=["gateway"])


@router.post("/chat/completions", openapi_extra=CALLED_WITH)
async def create_chat_completion(request: Request) -> Response:
    """OpenAI's chat completions, of any model that is on offer."""
    return await answer(request, CHAT_COMPLETIONS)


@router.post("/responses", openapi_extra=CALLED_WITH)
async def create_response(request: Request) -> Response:
    """OpenAI's Responses API, text and tools, of any model that is on offer."""
    return await answer(request, RESPONSES)


@router.post("/embeddings", openapi_extra=CALLED_WITH)
async def create_embeddings(request: Request) -> Response:
    """OpenAI's embeddings, of any model that makes them."""
    user, body = await caller(request), await body_of(request)
    with WhileWaiting(request.scope):
        return Whole(await runtime_of(request).asides.embeddings(user, body))
