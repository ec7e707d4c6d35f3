from typing import Any

from fastapi import APIRouter, status
from fastapi.responses import Response, StreamingResponse

from app.api.deps import ClientDep, CurrentUser, RuntimeDep, SessionDep
from app.schemas.account import OwnDeletion
from app.schemas.user import UserRead, UserUpdate
from app.services import user as users
from app.services.account import export

router = APIRouter(prefix="/users", tags=["users"])

_ZIP: dict[int | str, dict[str, Any]] = {
    200: {"description": "A zip file.", "content": {export.MEDIA_TYPE: {}}}
}


@router.get("/me")
async def get_profile(session: SessionDep, user: CurrentUser) -> UserRead:
    return UserRead.model_validate(await users.get(session, user))


@router.patch("/me")
async def change_profile(
    session: SessionDep, user: CurrentUser, form: UserUpdate
) -> UserRead:
    return UserRead.model_validate(await users.change(session, user, form))


@router.delete("/me", status_code=status.HTTP_204_NO_CONTENT)
async def delete_account(
    session: SessionDep,
    runtime: RuntimeDep,
    user: CurrentUser,
    client: ClientDep,
    form: OwnDeletion,
) -> None:
    """An admin can restore it for some time; then it is erased with all it owns."""
    await runtime.accounts.delete_own(session, user, form, ip=client.ip)


@router.get("/me/export", response_class=Response, responses=_ZIP)
async def export_account(runtime: RuntimeDep, user: CurrentUser) -> Response:
    """All that the account owns: tables as JSON Lines, chats as Markdown."""
    return StreamingResponse(
        export.content(runtime.database, runtime.storage, runtime.principals, user),
        media_type=export.MEDIA_TYPE,
        headers={
            "Content-Disposition": f'attachment; filename="{export.FILE_NAME}"',
            "Cache-Control": "no-store",
        },
    )
