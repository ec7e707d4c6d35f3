"""The models on offer, and how admins change what is known of them.

Users read, and admins change, each with a token of their own: a change takes one of the
desk, whose rules for addresses hold for it (see `middleware/address_rules.py`).
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, status

from app.api.deps import (
    AdminWith,
    ClientDep,
    CurrentUser,
    RouterDep,
    RuntimeDep,
    SessionDep,
)
from app.api.idempotency import IdempotentRoute
from app.schemas.base import Page, Text
from app.schemas.model import AdminModelRead, ModelCreate, ModelRead, ModelUpdate
from app.services import model as models
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/models", tags=["models"], route_class=IdempotentRoute)

ModelsAdmin = Annotated[DeskUser, Depends(AdminWith("models"))]
Name = Annotated[Text, Path(max_length=200)]


@router.get("")
async def list_models(_user: CurrentUser, llm: RouterDep) -> Page[ModelRead]:
    return Page(items=await models.listing(llm))


@router.post("", status_code=status.HTTP_201_CREATED)
async def register_model(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: ModelsAdmin,
    client: ClientDep,
    form: ModelCreate,
) -> AdminModelRead:
    """Offer a model, or say what is true of one; it counts at once, everywhere."""
    actor = admin.actor(client.ip)
    return await runtime.models.register(session, actor, form)


@router.get("/{name:path}")
async def get_model(_user: CurrentUser, llm: RouterDep, name: Name) -> ModelRead:
    return await models.get(llm, name)


@router.patch("/{name:path}")
async def change_model(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: ModelsAdmin,
    client: ClientDep,
    *,
    name: Name,
    form: ModelUpdate,
) -> AdminModelRead:
    """Of a registered model; null gives a fact back to the catalogue."""
    actor = admin.actor(client.ip)
    return await runtime.models.change(session, actor, name, form)


@router.delete("/{name:path}", status_code=status.HTTP_204_NO_CONTENT)
async def delete_model(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: ModelsAdmin,
    client: ClientDep,
    *,
    name: Name,
) -> None:
    """Forget what was registered; what its provider offers by itself stays on offer."""
    await runtime.models.delete(session, admin.actor(client.ip), name)
