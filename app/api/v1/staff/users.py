from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends

from app.api.deps import (
    ClientDep,
    PageDep,
    RuntimeDep,
    SessionDep,
    UserFilterDep,
    staff_of,
)
from app.schemas.base import Page
from app.schemas.user import UserRead
from app.services.desk import users
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/users")

Looking = Annotated[DeskUser, Depends(staff_of(1))]
Suspending = Annotated[DeskUser, Depends(staff_of(3))]


@router.get("")
async def staff_list_users(
    session: SessionDep, _staff: Looking, page: PageDep, wanted: UserFilterDep
) -> Page[UserRead]:
    """The newest first; deleted ones only where `status` asks for them."""
    found, following = await users.listing(
        session, page, query=wanted.q, status=wanted.status
    )
    items = [UserRead.model_validate(user) for user in found]
    return Page(items=items, next_cursor=following)


@router.get("/{user_id}")
async def staff_get_user(
    session: SessionDep, _staff: Looking, user_id: UUID
) -> UserRead:
    return UserRead.model_validate(await users.get(session, user_id))


@router.post("/{user_id}/suspend")
async def staff_suspend_user(
    session: SessionDep,
    runtime: RuntimeDep,
    staff: Suspending,
    client: ClientDep,
    user_id: UUID,
) -> UserRead:
    """Sessions, keys and running replies end at once."""
    actor = staff.actor(client.ip)
    user = await users.suspend(session, runtime.accounts, actor, user_id)
    return UserRead.model_validate(user)


@router.post("/{user_id}/activate")
async def staff_activate_user(
    session: SessionDep, staff: Suspending, client: ClientDep, user_id: UUID
) -> UserRead:
    """After a suspension or an archiving."""
    user = await users.activate(session, staff.actor(client.ip), user_id)
    return UserRead.model_validate(user)
