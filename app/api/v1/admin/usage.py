"""What a user may do and spend."""

from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, status

from app.api.deps import AdminWith, ClientDep, PageDep, RuntimeDep, SessionDep
from app.api.idempotency import IdempotentRoute
from app.schemas.base import Page
from app.schemas.credits import CreditAdjustment, CreditEntryRead
from app.schemas.plan import LimitsUpdate, PlanAssignment
from app.schemas.usage import UsageLimits
from app.services import usage
from app.services.credits import changes
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/users/{user_id}", route_class=IdempotentRoute)
PlansAdmin = Annotated[DeskUser, Depends(AdminWith("plans"))]
CreditsAdmin = Annotated[DeskUser, Depends(AdminWith("credits"))]


@router.put("/plan", status_code=status.HTTP_204_NO_CONTENT)
async def admin_assign_plan(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: PlansAdmin,
    client: ClientDep,
    *,
    user_id: UUID,
    form: PlanAssignment,
) -> None:
    actor = admin.actor(client.ip)
    await runtime.plans.assign(session, actor, user_id, form.plan)


@router.get("/limits")
async def admin_get_limits(
    session: SessionDep, _admin: PlansAdmin, user_id: UUID
) -> UsageLimits:
    return await usage.limits(session, user_id)


@router.put("/limits", status_code=status.HTTP_204_NO_CONTENT)
async def admin_set_limits(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: PlansAdmin,
    client: ClientDep,
    *,
    user_id: UUID,
    form: LimitsUpdate,
) -> None:
    """Limits of the user's own; those left out are the plan's."""
    await runtime.plans.override(session, admin.actor(client.ip), user_id, form)


@router.post("/limits/reset", status_code=status.HTTP_204_NO_CONTENT)
async def admin_reset_limits(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: PlansAdmin,
    client: ClientDep,
    *,
    user_id: UUID,
) -> None:
    """Give the user today's conversations again."""
    actor = admin.actor(client.ip)
    await changes.reset_day(session, runtime.credits, actor, user_id)


@router.get("/credits")
async def admin_list_credits(
    session: SessionDep, _admin: CreditsAdmin, user_id: UUID, page: PageDep
) -> Page[CreditEntryRead]:
    """The user's ledger, the newest first."""
    return await changes.page(session, user_id, **page.model_dump())


@router.post("/credits", status_code=status.HTTP_204_NO_CONTENT)
async def admin_adjust_credits(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: CreditsAdmin,
    client: ClientDep,
    *,
    user_id: UUID,
    form: CreditAdjustment,
) -> None:
    actor = admin.actor(client.ip)
    await changes.adjust(session, runtime.credits, actor, user_id, form)
