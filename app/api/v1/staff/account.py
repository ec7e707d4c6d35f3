from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, status

from app.api.deps import ClientDep, DeletedUsersDep, RuntimeDep, SessionDep, StaffOf
from app.schemas.account import DeletedUserRead, Restoration
from app.schemas.base import Page
from app.services.account import deleted
from app.services.audit import Actor
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/deleted-users")


async def _acting(
    staff: Annotated[DeskUser, Depends(StaffOf(3))], client: ClientDep
) -> Actor:
    return staff.actor(client.ip)


RestoringStaff = Annotated[Actor, Depends(_acting)]


@router.get("")
async def staff_deleted_users(
    session: SessionDep,
    runtime: RuntimeDep,
    _staff: RestoringStaff,
    query: DeletedUsersDep,
) -> Page[DeletedUserRead]:
    """The last deleted first; with an `email` all that had it, on one page."""
    items, following = await deleted.listing(
        session, runtime.crypto, **query.model_dump()
    )
    return Page(items=items, next_cursor=following)


@router.post("/{user_id}/restore", status_code=status.HTTP_204_NO_CONTENT)
async def staff_restore_user(
    session: SessionDep,
    runtime: RuntimeDep,
    staff: RestoringStaff,
    user_id: UUID,
    form: Restoration | None = None,
) -> None:
    """Bring back the account with all it owned; its sessions stay ended."""
    await runtime.accounts.restore(session, staff, user_id, form or Restoration())
