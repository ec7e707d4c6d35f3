from typing import Annotated

from fastapi import APIRouter, Depends, Path, status

from app.api.deps import AdminWith, ClientDep, RuntimeDep, SessionDep
from app.api.idempotency import IdempotentRoute
from app.schemas.base import Page, Text
from app.schemas.route import RouteCreate, RouteRead, RouteUpdate
from app.services import route as routes
from app.services.desk.principal import DeskUser

router = APIRouter(prefix="/routes", route_class=IdempotentRoute)
RoutesAdmin = Annotated[DeskUser, Depends(AdminWith("models"))]
Name = Annotated[Text, Path(max_length=200)]


@router.get("")
async def admin_list_routes(
    session: SessionDep, _admin: RoutesAdmin
) -> Page[RouteRead]:
    """Names that stand for several deployments of models."""
    found = await routes.listing(session)
    return Page(items=[RouteRead.model_validate(route) for route in found])


@router.post("", status_code=status.HTTP_201_CREATED)
async def admin_create_route(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: RoutesAdmin,
    client: ClientDep,
    form: RouteCreate,
) -> RouteRead:
    """It can be named as a model at once, everywhere."""
    route = await runtime.routes.create(session, admin.actor(client.ip), form)
    return RouteRead.model_validate(route)


@router.get("/{name:path}")
async def admin_get_route(
    session: SessionDep, _admin: RoutesAdmin, name: Name
) -> RouteRead:
    return RouteRead.model_validate(await routes.get(session, name))


@router.patch("/{name:path}")
async def admin_change_route(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: RoutesAdmin,
    client: ClientDep,
    *,
    name: Name,
    form: RouteUpdate,
) -> RouteRead:
    actor = admin.actor(client.ip)
    route = await runtime.routes.change(session, actor, name, form)
    return RouteRead.model_validate(route)


@router.delete("/{name:path}", status_code=status.HTTP_204_NO_CONTENT)
async def admin_delete_route(
    session: SessionDep,
    runtime: RuntimeDep,
    admin: RoutesAdmin,
    client: ClientDep,
    *,
    name: Name,
) -> None:
    """Refused while chats, API keys or other routes name it."""
    await runtime.routes.delete(session, admin.actor(client.ip), name)
