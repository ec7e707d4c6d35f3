from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, status

from app.api.deps import AdminWith, ClientDep, DeletedUsersDep, RuntimeDep, SessionDep
from app.schemas.account import (
    DeletedUserRead,
    Deletion,
    ErasureReport,
    Restoration,
)
from app.schemas.base import Page
from app.services.account import deleted
from app.services.audit import Actor
from app.services.desk.principal import DeskUser

router = APIRouter()


async def _acting(
    admin: Annotated[DeskUser, Depends(AdminWith("users"))], client: ClientDep
) -> Actor:
    return admin.actor(client.ip)


UsersAdmin = Annotated[Actor, Depends(_acting)]


@router.post("/users/{user_id}/archive", status_code=status.HTTP_204_NO_CONTENT)
async def admin_archive_user(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: UsersAdmin,
    user_id: UUID,
) -> None:
    """Keep the account as it is, but let nobody use it until it is activated."""
    await runtime.accounts.archive(session, admin, user_id)


@router.post("/users/{user_id}/delete")
async def admin_delete_user(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: UsersAdmin,
    user_id: UUID,
    form: Deletion | None = None,
) -> DeletedUserRead:
    """Hide the account and all it owns until it is restored, or erased for good."""
    gone = await runtime.accounts.delete(
        session, admin, user_id, reason=(form or Deletion()).reason
    )
    return deleted.read(runtime.crypto, gone)


@router.get("/deleted-users")
async def admin_deleted_users(
    session: SessionDep,
    runtime: RuntimeDep,
    _admin: UsersAdmin,
    query: DeletedUsersDep,
) -> Page[DeletedUserRead]:
    """The last deleted first; with an `email` all that had it, on one page."""
    items, following = await deleted.listing(
        session, runtime.crypto, **query.model_dump()
    )
    return Page(items=items, next_cursor=following)


@router.post("/deleted-users/{user_id}/restore", status_code=status.HTTP_204_NO_CONTENT)
async def admin_restore_user(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: UsersAdmin,
    user_id: UUID,
    form: Restoration | None = None,
) -> None:
    """Bring back the account with all it owned; its sessions stay ended."""
    await runtime.accounts.restore(session, admin, user_id, form or Restoration())


@router.post("/deleted-users/{user_id}/erase")
async def admin_erase_user(
    runtime: RuntimeDep, admin: UsersAdmin, user_id: UUID
) -> ErasureReport:
    """Leave nothing of a deleted account. The report is in the audit, too."""
    return await runtime.erasure.erase(admin, user_id)
