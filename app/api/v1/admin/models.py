from typing import Annotated

from fastapi import APIRouter, Depends

from app.api.deps import AdminWith, RuntimeDep, SessionDep
from app.schemas.base import Page
from app.schemas.model import AdminModelRead
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/models")


@router.get("")
async def admin_list_models(
    session: SessionDep,
    runtime: RuntimeDep,
    _admin: Annotated[DeskUser, Depends(AdminWith("models"))],
) -> Page[AdminModelRead]:
    """Every model, also what was taken out of the offer; `/models` changes them."""
    return Page(items=await runtime.models.listing(session))
