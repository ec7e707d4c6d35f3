from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Body, Depends, status
from fastapi.responses import Response, StreamingResponse

from app.api.deps import (
    AdminWith,
    ClientDep,
    PageDep,
    RuntimeDep,
    SessionDep,
    UserFilterDep,
)
from app.api.idempotency import IdempotentRoute
from app.schemas.base import Page
from app.schemas.desk import ImportReport, UserCreateByAdmin
from app.schemas.user import UserRead
from app.services.desk import transfer, users
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/users", route_class=IdempotentRoute)

UsersAdmin = Annotated[DeskUser, Depends(AdminWith("users"))]

_CSV: dict[int | str, dict[str, object]] = {
    200: {"description": "The file, as an attachment.", "content": {"text/csv": {}}}
}


@router.post("", status_code=status.HTTP_201_CREATED)
async def admin_create_user(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: UsersAdmin,
    client: ClientDep,
    form: UserCreateByAdmin,
) -> UserRead:
    """Without a password, the owner is mailed a link by which to choose one."""
    made = await users.create(session, runtime.passwords, admin.actor(client.ip), form)
    return UserRead.model_validate(made)


@router.get("")
async def admin_list_users(
    session: SessionDep, _admin: UsersAdmin, page: PageDep, wanted: UserFilterDep
) -> Page[UserRead]:
    """The newest first; deleted ones only where `status` asks for them."""
    found, following = await users.listing(
        session, page, query=wanted.q, status=wanted.status
    )
    items = [UserRead.model_validate(user) for user in found]
    return Page(items=items, next_cursor=following)


@router.get("/export", response_class=Response, responses=_CSV)
async def admin_export_users(
    runtime: RuntimeDep, _admin: UsersAdmin, wanted: UserFilterDep
) -> Response:
    """The list as CSV, whole."""
    return StreamingResponse(
        transfer.export_users(runtime.database, query=wanted.q, status=wanted.status),
        media_type="text/csv; charset=utf-8",
        headers={
            "Content-Disposition": 'attachment; filename="users.csv"',
            "Cache-Control": "no-store",
        },
    )


@router.post("/import", status_code=status.HTTP_201_CREATED)
async def admin_import_users(
    session: SessionDep,
    admin: UsersAdmin,
    client: ClientDep,
    file: Annotated[
        bytes,
        Body(
            media_type="text/csv",
            description="The first row names the columns: email, username, full_name.",
        ),
    ],
) -> ImportReport:
    """An account for every row, or for none; each owner is mailed a link."""
    return await transfer.import_users(session, admin.actor(client.ip), file)


@router.get("/{user_id}")
async def admin_get_user(
    session: SessionDep, _admin: UsersAdmin, user_id: UUID
) -> UserRead:
    return UserRead.model_validate(await users.get(session, user_id))


@router.post("/{user_id}/suspend")
async def admin_suspend_user(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: UsersAdmin,
    client: ClientDep,
    user_id: UUID,
) -> UserRead:
    """Sessions, keys and running replies end at once."""
    actor = admin.actor(client.ip)
    user = await users.suspend(session, runtime.accounts, actor, user_id)
    return UserRead.model_validate(user)


@router.post("/{user_id}/activate")
async def admin_activate_user(
    session: SessionDep, admin: UsersAdmin, client: ClientDep, user_id: UUID
) -> UserRead:
    """After a suspension or an archiving."""
    user = await users.activate(session, admin.actor(client.ip), user_id)
    return UserRead.model_validate(user)


@router.post("/{user_id}/unlock")
async def admin_unlock_user(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: UsersAdmin,
    client: ClientDep,
    user_id: UUID,
) -> UserRead:
    """After too many failed logins."""
    actor = admin.actor(client.ip)
    user = await users.unlock(session, runtime.lockout, actor, user_id)
    return UserRead.model_validate(user)


@router.post("/{user_id}/resend", status_code=status.HTTP_202_ACCEPTED)
async def admin_resend_mail(
    session: SessionDep, admin: UsersAdmin, client: ClientDep, user_id: UUID
) -> UserRead:
    """The invitation, or the link that verifies the address; not more than enough."""
    user = await users.resend(session, admin.actor(client.ip), user_id)
    return UserRead.model_validate(user)


@router.delete("/{user_id}/mfa", status_code=status.HTTP_204_NO_CONTENT)
async def admin_remove_second_factor(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: UsersAdmin,
    client: ClientDep,
    user_id: UUID,
) -> None:
    """For one who has lost both the device and the recovery codes."""
    actor = admin.actor(client.ip)
    await users.remove_second_factor(session, runtime.mfa, actor, user_id)
