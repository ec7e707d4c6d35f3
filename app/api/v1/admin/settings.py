from typing import Annotated

from fastapi import APIRouter, Depends

from app.api.deps import AdminWith, ClientDep, RuntimeDep, SessionDep
from app.schemas.base import Page
from app.schemas.setting import SettingRead, SettingsUpdate
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/settings")

SettingsAdmin = Annotated[DeskUser, Depends(AdminWith("settings"))]


@router.get("")
async def admin_list_settings(
    session: SessionDep, runtime: RuntimeDep, _admin: SettingsAdmin
) -> Page[SettingRead]:
    """Those that may be changed while the server runs, on one page."""
    return Page(items=await runtime.changed_settings.listing(session))


@router.patch("")
async def admin_change_settings(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: SettingsAdmin,
    client: ClientDep,
    form: SettingsUpdate,
) -> Page[SettingRead]:
    """It counts at once, in every process; the environment's values cannot change."""
    actor = admin.actor(client.ip)
    return Page(items=await runtime.changed_settings.change(session, actor, form))
