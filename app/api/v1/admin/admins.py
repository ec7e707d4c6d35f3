from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, status

from app.api.deps import AdminWith, ClientDep, PageDep, RuntimeDep, SessionDep
from app.api.idempotency import IdempotentRoute
from app.models import Admin
from app.schemas.base import Page
from app.schemas.desk import AdminCreate, AdminRead, AdminUpdate
from app.services.desk import accounts
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/admins", route_class=IdempotentRoute)

StaffAdmin = Annotated[DeskUser, Depends(AdminWith("staff"))]


@router.post("", status_code=status.HTTP_201_CREATED)
async def admin_create_admin(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: StaffAdmin,
    client: ClientDep,
    form: AdminCreate,
) -> AdminRead:
    made = await accounts.create_by(
        session, runtime.passwords, admin, form, ip=client.ip
    )
    return AdminRead.model_validate(made)


@router.get("")
async def admin_list_admins(
    session: SessionDep, _admin: StaffAdmin, page: PageDep
) -> Page[AdminRead]:
    found, following = await accounts.listing(session, Admin, page)
    items = [AdminRead.model_validate(account) for account in found]
    return Page(items=items, next_cursor=following)


@router.get("/{admin_id}")
async def admin_get_admin(
    session: SessionDep, _admin: StaffAdmin, admin_id: UUID
) -> AdminRead:
    account = await accounts.get(session, Admin, admin_id)
    return AdminRead.model_validate(account)


@router.patch("/{admin_id}")
async def admin_change_admin(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: StaffAdmin,
    client: ClientDep,
    admin_id: UUID,
    *,
    form: AdminUpdate,
) -> AdminRead:
    changed = await accounts.change(
        session,
        runtime.desk,
        admin,
        admin_id,
        form=form,
        passwords=runtime.passwords,
        ip=client.ip,
    )
    return AdminRead.model_validate(changed)


@router.delete("/{admin_id}", status_code=status.HTTP_204_NO_CONTENT)
async def admin_delete_admin(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: StaffAdmin,
    client: ClientDep,
    admin_id: UUID,
) -> None:
    await accounts.delete(session, runtime.desk, admin, Admin, admin_id, ip=client.ip)


@router.delete("/{admin_id}/mfa", status_code=status.HTTP_204_NO_CONTENT)
async def admin_remove_second_factor_of_admin(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: StaffAdmin,
    client: ClientDep,
    admin_id: UUID,
) -> None:
    """For one who has lost both the device and the recovery codes."""
    await accounts.remove_second_factor(
        session, runtime.mfa, admin, Admin, admin_id, ip=client.ip
    )
