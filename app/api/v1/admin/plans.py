from typing import Annotated

from fastapi import APIRouter, Depends, status

from app.api.deps import AdminWith, ClientDep, RuntimeDep, SessionDep
from app.api.idempotency import IdempotentRoute
from app.schemas.base import Page
from app.schemas.plan import PlanCreate, PlanName, PlanRead, PlanUpdate
from app.services import plan as plans
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/plans", route_class=IdempotentRoute)
PlansAdmin = Annotated[DeskUser, Depends(AdminWith("plans"))]


@router.get("")
async def admin_list_plans(session: SessionDep, _admin: PlansAdmin) -> Page[PlanRead]:
    found = await plans.listing(session)
    return Page(items=[PlanRead.model_validate(plan) for plan in found])


@router.post("", status_code=status.HTTP_201_CREATED)
async def admin_create_plan(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: PlansAdmin,
    client: ClientDep,
    *,
    form: PlanCreate,
) -> PlanRead:
    plan = await runtime.plans.create(session, admin.actor(client.ip), form)
    return PlanRead.model_validate(plan)


@router.get("/{name}")
async def admin_get_plan(
    session: SessionDep, _admin: PlansAdmin, name: PlanName
) -> PlanRead:
    return PlanRead.model_validate(await plans.get(session, name))


@router.patch("/{name}")
async def admin_change_plan(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: PlansAdmin,
    client: ClientDep,
    *,
    name: PlanName,
    form: PlanUpdate,
) -> PlanRead:
    plan = await runtime.plans.change(session, admin.actor(client.ip), name, form)
    return PlanRead.model_validate(plan)


@router.delete("/{name}", status_code=status.HTTP_204_NO_CONTENT)
async def admin_delete_plan(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: PlansAdmin,
    client: ClientDep,
    *,
    name: PlanName,
) -> None:
    await runtime.plans.delete(session, admin.actor(client.ip), name)
