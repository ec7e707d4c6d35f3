"""Anthropic's API, as its clients call it: base URL `https://<host>`."""

from fastapi import APIRouter, Request
from fastapi.responses import Response

from app.api.gateway.answering import CALLED_WITH, answer
from app.services.gateway.messages import MESSAGES

router = APIRouter(prefix="/v1", tags=["gateway"])


@router.post("/messages", openapi_extra=CALLED_WITH)
async def create_gateway_message(request: Request) -> Response:
    """Anthropic's Messages API, of any model that is on offer."""
    return await answer(request, MESSAGES)
