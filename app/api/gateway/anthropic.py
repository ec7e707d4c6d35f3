"""Anthropic's API, as its clients call it: base URL `https://<host>`."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api.gateway.answering import (
    CALLED_WITH,
    Whole,
    answer,
    betas_of,
    body_of,
    caller,
    runtime_of,
)
from app.api.gateway.leaving import WhileWaiting
from app.services.gateway.messages import MESSAGES

router = APIRouter(prefix="/v1", tags=["gateway"])


@router.post("/messages", openapi_extra=CALLED_WITH)
async def create_gateway_message(request: Request) -> Response:
    """Anthropic's Messages API, of any model that is on offer."""
    return await answer(request, MESSAGES)


@router.post("/messages/count_tokens", openapi_extra=CALLED_WITH)
async def count_message_tokens(request: Request) -> Response:
    """The tokens that a request would take; it costs nothing."""
    user, body = await caller(request), await body_of(request)
    with WhileWaiting(request.scope):
        tokens = await runtime_of(request).asides.count_tokens(
            user, body, betas=betas_of(request)
        )
    return Whole(b'{"input_tokens":%d}' % tokens)
