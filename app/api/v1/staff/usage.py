"""What a user may do and spend."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, status

from app.api.deps import ClientDep, RuntimeDep, SessionDep, StaffOf
from app.api.idempotency import IdempotentRoute
from app.schemas.credits import CreditAdjustment
from app.schemas.usage import UsageLimits
from app.services import usage
from app.services.credits import changes
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/users/{user_id}", route_class=IdempotentRoute)


@router.get("/limits")
async def staff_get_limits(
    session: SessionDep,
    _staff: Annotated[DeskUser, Depends(StaffOf(1))],
    user_id: UUID,
) -> UsageLimits:
    return await usage.limits(session, user_id)


@router.post("/limits/reset", status_code=status.HTTP_204_NO_CONTENT)
async def staff_reset_limits(
    session: SessionDep,
    runtime: RuntimeDep,
    staff: Annotated[DeskUser, Depends(StaffOf(2))],
    client: ClientDep,
    *,
    user_id: UUID,
) -> None:
    """Give the user today's conversations again."""
    actor = staff.actor(client.ip)
    await changes.reset_day(session, runtime.credits, actor, user_id)


@router.post("/credits", status_code=status.HTTP_204_NO_CONTENT)
async def staff_adjust_credits(
    session: SessionDep,
    runtime: RuntimeDep,
    staff: Annotated[DeskUser, Depends(StaffOf(3))],
    client: ClientDep,
    *,
    user_id: UUID,
    form: CreditAdjustment,
) -> None:
    actor = staff.actor(client.ip)
    await changes.adjust(session, runtime.credits, actor, user_id, form)
