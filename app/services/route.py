"""Routes: names that stand for several deployments of models, as admins make them.

Each call of a model looks for its route, so each process keeps them all, and hears over
the bus when they change. What becomes of them: `integrations/llm/routing.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.bus import Bus
from app.core.database import Database, after_commit
from app.core.exceptions import (
    BadRequestError,
    ConflictError,
    FieldError,
    NotFoundError,
    ValidationFailedError,
)
from app.core.mirror import Mirror
from app.integrations.llm.base import ProviderError
from app.integrations.llm.routes import Deployment, Route
from app.integrations.llm.routing import Router
from app.models import ModelRoute
from app.schemas.route import RouteCreate, RouteUpdate
from app.services import audit
from app.services.audit import Actor
from app.services.model import naming

_FACTS = ("name", "deployments", "fallbacks")


class Routes:
    """The routes, as this process knows them, and how admins change them."""

    def __init__(self, database: Database, bus: Bus, router: Router) -> None:
        self._database = database
        self._router = router
        self._mirror = Mirror(bus, "route", read=self._read_all, take=router.register)

    async def open(self) -> None:
        await self._mirror.open()

    async def close(self) -> None:
        await self._mirror.close()

    async def create(
        self, session: AsyncSession, actor: Actor, form: RouteCreate
    ) -> ModelRoute:
        """Raises ValidationFailedError by field, ConflictError where it exists."""
        prefix, slash, _ = form.name.partition("/")
        if slash and prefix in self._router.providers.names:
            message = f"begins with a provider's name: {prefix}/ is for its own models"
            raise _invalid([FieldError(path="name", message=message)])
        row = ModelRoute(**form.model_dump())
        await self._check(session, row)
        session.add(row)
        try:
            await session.flush()
        except IntegrityError as error:
            raise ConflictError(
                "There is a route of this name already: change it with PATCH.",
                code="route_taken",
                errors=[FieldError(path="name", message="is taken")],
            ) from error
        await self._changed(session, actor, "route.create", row, after=_facts(row))
        return row

    async def change(
        self, session: AsyncSession, actor: Actor, name: str, form: RouteUpdate
    ) -> ModelRoute:
        """It counts from the next call on. Raises ValidationFailedError by field."""
        row = await get(session, name, lock=True)
        before = _facts(row)
        for column, value in form.model_dump(exclude_none=True).items():
            setattr(row, column, value)
        await self._check(session, row)
        await session.flush()
        after = _facts(row)
        await self._changed(
            session, actor, "route.change", row, before=before, after=after
        )
        return row

    async def delete(self, session: AsyncSession, actor: Actor, name: str) -> None:
        """Raises ConflictError while a chat, an API key or another route names it."""
        row = await get(session, name, lock=True)
        others = await listing(session)
        if any(name in other.fallbacks for other in others) or await session.scalar(
            naming(name)
        ):
            raise ConflictError(
                "Chats, API keys or other routes name this route: have them name "
                "another one, or change what it stands for.",
                code="route_in_use",
            )
        await session.delete(row)
        await self._changed(session, actor, "route.delete", row, before=_facts(row))

    async def _check(self, session: AsyncSession, row: ModelRoute) -> None:
        """Raises ValidationFailedError with all that is wrong of it."""
        others = {r.name: r.fallbacks for r in await listing(session)}
        known = {**others, row.name: row.fallbacks}
        errors = [*_twice(row)]
        for number, deployment in enumerate(row.deployments):
            path = f"deployments.{number}.model"
            if deployment["model"] in known:
                message = "is a route: name routes as fallbacks"
                errors.append(FieldError(path=path, message=message))
            elif not await self._is_model(deployment["model"]):
                errors.append(FieldError(path=path, message="names no model"))
        for number, fallback in enumerate(row.fallbacks):
            path = f"fallbacks.{number}"
            if fallback in known:
                if row.name in _reached(fallback, known):
                    message = "leads back to this route"
                    errors.append(FieldError(path=path, message=message))
            elif not await self._is_model(fallback):
                message = "names no model and no route"
                errors.append(FieldError(path=path, message=message))
        if errors:
            raise _invalid(errors)

    async def _is_model(self, name: str) -> bool:
        """What a provider cannot tell now may be one."""
        try:
            await self._router.providers.resolve(name, able=None)
        except BadRequestError:
            return False
        except ProviderError:
            return True
        return True

    async def _changed(
        self,
        session: AsyncSession,
        actor: Actor,
        action: str,
        row: ModelRoute,
        **told: dict[str, Any],
    ) -> None:
        await audit.record(session, actor, action, target=("route", row.id), **told)
        name, route = row.name, _route(row) if "after" in told else None

        def count() -> None:
            # Here at once: others hear of it, and read it.
            self._router.register_one(name, route)
            self._mirror.changed()

        after_commit(session, count)

    async def _read_all(self) -> dict[str, Route]:
        async with self._database.unit_of_work(read_only=True) as session:
            return {row.name: _route(row) for row in await listing(session)}


async def listing(session: AsyncSession) -> Sequence[ModelRoute]:
    return (await session.scalars(select(ModelRoute).order_by(ModelRoute.name))).all()


async def get(session: AsyncSession, name: str, *, lock: bool = False) -> ModelRoute:
    statement = select(ModelRoute).where(ModelRoute.name == name)
    row = await session.scalar(statement.with_for_update() if lock else statement)
    if row is None:
        raise NotFoundError("There is no route of this name.")
    return row


def _twice(row: ModelRoute) -> Iterator[FieldError]:
    named: set[str] = set()
    places = [
        *(
            (f"deployments.{n}.model", d["model"])
            for n, d in enumerate(row.deployments)
        ),
        *((f"fallbacks.{n}", name) for n, name in enumerate(row.fallbacks)),
    ]
    for path, name in places:
        if name in named:
            yield FieldError(path=path, message="is named twice")
        named.add(name)


def _reached(name: str, fallbacks: Mapping[str, Sequence[str]]) -> set[str]:
    """That route, and all to which its fallbacks lead."""
    reached: set[str] = set()
    waiting = [name]
    while waiting:
        one = waiting.pop()
        if one not in reached:
            reached.add(one)
            waiting += fallbacks.get(one, ())
    return reached


def _invalid(errors: list[FieldError]) -> ValidationFailedError:
    words = "; ".join(f"`{e['path']}` {e['message']}" for e in errors)
    return ValidationFailedError(f"{words}.", errors=errors)


def _facts(row: ModelRoute) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _FACTS}


def _route(row: ModelRoute) -> Route:
    deployments = tuple(Deployment(**fields) for fields in row.deployments)
    return Route(deployments, tuple(row.fallbacks))
