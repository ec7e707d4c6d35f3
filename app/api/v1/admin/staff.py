from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, status

from app.api.deps import AdminWith, ClientDep, PageDep, RuntimeDep, SessionDep
from app.api.idempotency import IdempotentRoute
from app.models import SupportStaff
from app.schemas.base import Page
from app.schemas.desk import StaffCreate, StaffRead, StaffUpdate
from app.services.desk import accounts
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/staff", route_class=IdempotentRoute)

StaffAdmin = Annotated[DeskUser, Depends(AdminWith("staff"))]


@router.post("", status_code=status.HTTP_201_CREATED)
async def admin_create_staff(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: StaffAdmin,
    client: ClientDep,
    form: StaffCreate,
) -> StaffRead:
    made = await accounts.create_by(
        session, runtime.passwords, admin, form, ip=client.ip
    )
    return StaffRead.model_validate(made)


@router.get("")
async def admin_list_staff(
    session: SessionDep, _admin: StaffAdmin, page: PageDep
) -> Page[StaffRead]:
    found, following = await accounts.listing(session, SupportStaff, page)
    items = [StaffRead.model_validate(account) for account in found]
    return Page(items=items, next_cursor=following)


@router.get("/{staff_id}")
async def admin_get_staff(
    session: SessionDep, _admin: StaffAdmin, staff_id: UUID
) -> StaffRead:
    account = await accounts.get(session, SupportStaff, staff_id)
    return StaffRead.model_validate(account)


@router.patch("/{staff_id}")
async def admin_change_staff(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: StaffAdmin,
    client: ClientDep,
    staff_id: UUID,
    *,
    form: StaffUpdate,
) -> StaffRead:
    changed = await accounts.change(
        session,
        runtime.desk,
        admin,
        staff_id,
        form=form,
        passwords=runtime.passwords,
        ip=client.ip,
    )
    return StaffRead.model_validate(changed)


@router.delete("/{staff_id}", status_code=status.HTTP_204_NO_CONTENT)
async def admin_delete_staff(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: StaffAdmin,
    client: ClientDep,
    staff_id: UUID,
) -> None:
    await accounts.delete(
        session, runtime.desk, admin, SupportStaff, staff_id, ip=client.ip
    )


@router.delete("/{staff_id}/mfa", status_code=status.HTTP_204_NO_CONTENT)
async def admin_remove_second_factor_of_staff(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: StaffAdmin,
    client: ClientDep,
    staff_id: UUID,
) -> None:
    """For one who has lost both the device and the recovery codes."""
    await accounts.remove_second_factor(
        session, runtime.mfa, admin, SupportStaff, staff_id, ip=client.ip
    )
