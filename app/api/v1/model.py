from fastapi import APIRouter

from app.api.deps import CurrentUser, ProvidersDep
from app.schemas.base import Page
from app.schemas.model import ModelRead
from app.services import model as models

router = APIRouter(prefix="/models", tags=["models"])


@router.get("")
async def list_models(_user: CurrentUser, providers: ProvidersDep) -> Page[ModelRead]:
    return Page(items=await models.listing(providers))
