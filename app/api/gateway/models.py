"""The models on offer, for both APIs: Anthropic's clients send `anthropic-version`."""

from typing import Annotated

import orjson
from fastapi import APIRouter, Header, Path, Request
from fastapi.responses import Response

from app.api.deps import CurrentUser, RuntimeDep
from app.api.gateway.answering import Whole
from app.schemas.base import Text
from app.services.gateway import listing

router = APIRouter(prefix="/v1", tags=["gateway"])

Version = Annotated[str | None, Header(alias="anthropic-version", max_length=50)]
Name = Annotated[Text, Path(max_length=200)]


@router.get("/models")
async def list_gateway_models(
    request: Request, user: CurrentUser, runtime: RuntimeDep, version: Version = None
) -> Response:
    """What the caller may call: in pages for Anthropic's clients, else all of it."""
    models = await runtime.asides.models(user)
    if version is None:
        return Whole(orjson.dumps(listing.openai_list(models)))
    return Whole(orjson.dumps(listing.anthropic_list(models, request.query_params)))


@router.get("/models/{name:path}")
async def get_gateway_model(
    user: CurrentUser, runtime: RuntimeDep, name: Name, version: Version = None
) -> Response:
    model = await runtime.asides.model(user, name)
    written = listing.openai_model if version is None else listing.anthropic_model
    return Whole(orjson.dumps(written(model)))
