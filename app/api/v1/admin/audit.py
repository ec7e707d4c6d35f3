from typing import Annotated

from fastapi import APIRouter, Depends, Query

from app.api.deps import AdminWith, PageDep, SessionDep
from app.schemas.audit import AuditEventRead, AuditFilter
from app.schemas.base import Page
from app.services.audit import reading
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/audit")


@router.get("")
async def admin_list_audit(
    session: SessionDep,
    _admin: Annotated[DeskUser, Depends(AdminWith("audit"))],
    page: PageDep,
    wanted: Annotated[AuditFilter, Query()],
) -> Page[AuditEventRead]:
    """What was done by whom, the newest first."""
    found, following = await reading.listing(session, page, wanted)
    items = [AuditEventRead.model_validate(event) for event in found]
    return Page(items=items, next_cursor=following)
