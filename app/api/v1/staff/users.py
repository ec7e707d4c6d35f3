from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, status

from app.api.deps import (
    ClientDep,
    PageDep,
    RuntimeDep,
    SessionDep,
    StaffOf,
    UserFilterDep,
)
from app.api.idempotency import IdempotentRoute
from app.schemas.base import Page
from app.schemas.user import UserRead
from app.services.desk import users
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/users", route_class=IdempotentRoute)

Looking = Annotated[DeskUser, Depends(StaffOf(1))]
Helping = Annotated[DeskUser, Depends(StaffOf(2))]
Suspending = Annotated[DeskUser, Depends(StaffOf(3))]


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


@router.post("/{user_id}/unlock")
async def staff_unlock_user(
    session: SessionDep,
    runtime: RuntimeDep,
    staff: Helping,
    client: ClientDep,
    user_id: UUID,
) -> UserRead:
    """After too many failed logins."""
    actor = staff.actor(client.ip)
    user = await users.unlock(session, runtime.lockout, actor, user_id)
    return UserRead.model_validate(user)


@router.post("/{user_id}/resend", status_code=status.HTTP_202_ACCEPTED)
async def staff_resend_mail(
    session: SessionDep, staff: Helping, client: ClientDep, user_id: UUID
) -> UserRead:
    """The invitation, or the link that verifies the address; not more than enough."""
    user = await users.resend(session, staff.actor(client.ip), user_id)
    return UserRead.model_validate(user)
