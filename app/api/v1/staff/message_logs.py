from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from app.api.deps import ClientDep, PageDep, RuntimeDep, StaffOf
from app.schemas.base import Page
from app.schemas.message_log import MessageLogFilter, MessageLogRead, MessageLogText
from app.services.desk.principal import DeskUser
from app.services.message_log import reading

router = APIRouter(prefix="/message-logs")

Reading = Annotated[DeskUser, Depends(StaffOf(3))]


@router.get("")
async def staff_list_message_logs(
    runtime: RuntimeDep,
    staff: Reading,
    client: ClientDep,
    page: PageDep,
    wanted: Annotated[MessageLogFilter, Query()],
) -> Page[MessageLogRead]:
    """Calls of models without their text, the newest first. The audit notes it."""
    actor = staff.actor(client.ip)
    found, following = await reading.listing(runtime.database, actor, page, wanted)
    items = [MessageLogRead.model_validate(log) for log in found]
    return Page(items=items, next_cursor=following)


@router.get("/{log_id}")
async def staff_read_message_log(
    runtime: RuntimeDep, staff: Reading, client: ClientDep, log_id: UUID
) -> MessageLogText:
    """One call with what was asked and answered. The audit notes it."""
    actor = staff.actor(client.ip)
    return await reading.read(runtime.database, runtime.crypto, actor, log_id)
