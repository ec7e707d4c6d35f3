from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, status
from fastapi.responses import Response

from app.api.deps import AdminWith, ClientDep, RuntimeDep, SessionDep
from app.api.idempotency import IdempotentRoute
from app.schemas.apikey import KeyCreated, KeyRead
from app.schemas.base import Page
from app.schemas.servicekey import ServiceKeyCreate
from app.services import servicekey as keys
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/service-keys", route_class=IdempotentRoute)

AdminDep = Annotated[DeskUser, Depends(AdminWith("settings"))]
FreshAdminDep = Annotated[DeskUser, Depends(AdminWith("settings", fresh=True))]


@router.post("", status_code=status.HTTP_201_CREATED)
async def admin_create_service_key(
    session: SessionDep,
    admin: FreshAdminDep,
    client: ClientDep,
    form: ServiceKeyCreate,
    response: Response,
) -> KeyCreated:
    """Make a key for an external application; it is in this answer alone."""
    response.headers["Cache-Control"] = "no-store"
    return await keys.create(session, admin.actor(client.ip), form)


@router.get("")
async def admin_list_service_keys(
    session: SessionDep, _admin: AdminDep
) -> Page[KeyRead]:
    found = await keys.listing(session)
    return Page(items=[KeyRead.model_validate(key) for key in found])


@router.delete("/{key_id}", status_code=status.HTTP_204_NO_CONTENT)
async def admin_revoke_service_key(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: AdminDep,
    client: ClientDep,
    key_id: UUID,
) -> None:
    await keys.revoke(session, admin.actor(client.ip), runtime.principals, key_id)
