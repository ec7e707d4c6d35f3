from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, Depends, status

from app.api.deps import AdminWith, ClientDep, RuntimeDep, SessionDep
from app.api.idempotency import IdempotentRoute
from app.schemas.base import Page
from app.schemas.ip_rule import IpRuleCreate, IpRuleRead
from app.services import ip_rule
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/ip-rules", route_class=IdempotentRoute)

SettingsAdmin = Annotated[DeskUser, Depends(AdminWith("settings"))]


@router.get("")
async def admin_list_ip_rules(
    session: SessionDep, _admin: SettingsAdmin
) -> Page[IpRuleRead]:
    """All of them, on one page."""
    rules = await ip_rule.listing(session)
    return Page(items=[IpRuleRead.model_validate(rule) for rule in rules])


@router.post("", status_code=status.HTTP_201_CREATED)
async def admin_create_ip_rule(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: SettingsAdmin,
    client: ClientDep,
    form: IpRuleCreate,
) -> IpRuleRead:
    """It counts within a second, in every process."""
    actor = admin.actor(client.ip)
    rule = await ip_rule.create(session, runtime.ip_rules, actor, form)
    return IpRuleRead.model_validate(rule)


@router.delete("/{rule_id}", status_code=status.HTTP_204_NO_CONTENT)
async def admin_delete_ip_rule(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: SettingsAdmin,
    client: ClientDep,
    rule_id: UUID,
) -> None:
    await ip_rule.delete(session, runtime.ip_rules, admin.actor(client.ip), rule_id)
