from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, Query
from fastapi.responses import Response, StreamingResponse

from app.api.deps import AdminWith, ClientDep, PageDep, RuntimeDep, SessionDep
from app.schemas.base import Page
from app.schemas.message_log import (
    MessageLogFilter,
    MessageLogRead,
    MessageLogText,
    TextKeeping,
)
from app.services.desk.principal import DeskUser
from app.services.message_log import reading, retention

router = APIRouter()

LogsAdmin = Annotated[DeskUser, Depends(AdminWith("logs"))]
MessageLogFilterDep = Annotated[MessageLogFilter, Query()]

_FILES: dict[int | str, dict[str, object]] = {
    200: {
        "description": "The file, as an attachment.",
        "content": {"text/csv": {}, "application/jsonl": {}},
    }
}


@router.get("/message-logs")
async def admin_list_message_logs(
    runtime: RuntimeDep,
    admin: LogsAdmin,
    client: ClientDep,
    page: PageDep,
    wanted: MessageLogFilterDep,
) -> Page[MessageLogRead]:
    """Calls of models without their text, the newest first. The audit notes it."""
    actor = admin.actor(client.ip)
    found, following = await reading.listing(runtime.database, actor, page, wanted)
    items = [MessageLogRead.model_validate(log) for log in found]
    return Page(items=items, next_cursor=following)


@router.get("/message-logs/export", response_class=Response, responses=_FILES)
async def admin_export_message_logs(
    runtime: RuntimeDep,
    admin: LogsAdmin,
    client: ClientDep,
    wanted: MessageLogFilterDep,
    kind: Annotated[reading.Format, Query(alias="format")] = "csv",
    *,
    with_text: Annotated[bool, Query()] = False,
) -> Response:
    """The whole list as a file, if asked with the text. The audit notes it."""
    content = await reading.export(
        runtime.database,
        runtime.crypto,
        admin.actor(client.ip),
        wanted,
        kind=kind,
        with_text=with_text,
    )
    return StreamingResponse(
        content,
        media_type=reading.MEDIA_TYPES[kind],
        headers={
            "Content-Disposition": f'attachment; filename="message-logs.{kind}"',
            "Cache-Control": "no-store",
        },
    )


@router.get("/message-logs/{log_id}")
async def admin_read_message_log(
    runtime: RuntimeDep, admin: LogsAdmin, client: ClientDep, log_id: UUID
) -> MessageLogText:
    """One call with what was asked and answered. The audit notes it."""
    actor = admin.actor(client.ip)
    return await reading.read(runtime.database, runtime.crypto, actor, log_id)


@router.put("/users/{user_id}/message-logs")
async def admin_keep_message_text(
    session: SessionDep,
    admin: LogsAdmin,
    client: ClientDep,
    user_id: UUID,
    form: TextKeeping,
) -> TextKeeping:
    """Whether the text of this user's calls is kept from now on."""
    actor = admin.actor(client.ip)
    return await retention.set_text_keeping(session, actor, user_id, form)
