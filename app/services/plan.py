"""Plans, and the limits that are in effect for a user.

They are looked at on every call of a model, so each process keeps them, and hears over
the bus when they change.
"""

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import bindparam, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.bus import Bus
from app.core.cache import Cache
from app.core.database import Database, after_commit
from app.core.exceptions import (
    ConflictError,
    FieldError,
    NotFoundError,
    ValidationFailedError,
)
from app.core.statements import Script, Statement, play
from app.models import FIRST_PLAN, Limits, Plan, User
from app.schemas.plan import LimitsUpdate, PlanCreate, PlanUpdate
from app.services import audit
from app.services.audit import Actor
from app.services.credits import accounts

_CACHED = 10_000
_SECONDS = 60
_SECONDS_UNHEARD = 0.5
_FORGET = "limits.forget"

LIMITS = tuple(LimitsUpdate.model_fields)
"""The columns of a plan that limit."""


class Plans:
    """The limits of the users who are at work, kept for a minute."""

    def __init__(self, database: Database, bus: Bus) -> None:
        self._database = database
        self._bus = bus
        self._cache: Cache[UUID, Limits] = Cache(size=_CACHED, ttl=self._trusted_for)
        self._loading: dict[UUID, asyncio.Task[Limits]] = {}

    async def open(self) -> None:
        await self._bus.listen(_FORGET, self._hear)
        self._bus.on_gap(lambda: self._cache.drop(lambda _: True))

    async def close(self) -> None:
        await self._bus.unlisten(_FORGET, self._hear)

    def known(self, user_id: UUID) -> Limits | None:
        """Those that were looked up a moment ago."""
        return self._cache.find(user_id)

    async def of(self, user_id: UUID) -> Limits:
        """Raises NotFoundError for a user who is no more."""
        return await self._cache.get(user_id, lambda: self._load_once(user_id))

    def forget(self, user_id: UUID | None = None) -> None:
        """Have every process read a user's limits anew; without one, everybody's."""
        self._bus.say(_FORGET, user_id.bytes if user_id else b"")

    def _hear(self, message: bytes) -> None:
        changed = UUID(bytes=message) if message else None
        self._loading.clear()  # what began before may not have seen the change
        self._cache.drop(lambda one: changed is None or one.user_id == changed)

    def _trusted_for(self) -> float:
        return _SECONDS if self._bus.reliable else _SECONDS_UNHEARD

    async def _load_once(self, user_id: UUID) -> Limits:
        """One look-up for all who ask at the same moment: they may be hundreds."""
        loading = self._loading.get(user_id)
        if loading is None:
            loading = asyncio.create_task(self._load(user_id))
            self._loading[user_id] = loading
            loading.add_done_callback(lambda task: self._loaded(user_id, task))
        return await asyncio.shield(loading)

    def _loaded(self, user_id: UUID, task: asyncio.Task[Limits]) -> None:
        if self._loading.get(user_id) is task:
            del self._loading[user_id]
        if not task.cancelled():
            task.exception()  # whoever waits for it gets it

    async def _load(self, user_id: UUID) -> Limits:
        # Without a session: thousands of users may come in a minute.
        found = await self._database.run(_OF(user=user_id), brief=True)
        return _limits(user_id, found.rows)

    # What admins do

    async def create(
        self, session: AsyncSession, actor: Actor, form: PlanCreate
    ) -> Plan:
        """Raises ConflictError where there is one of this name."""
        plan = Plan(**form.model_dump())
        session.add(plan)
        try:
            await session.flush()
        except IntegrityError as error:
            raise ConflictError(
                "There is already a plan of this name.",
                code="plan_taken",
                errors=[FieldError(path="name", message="is taken")],
            ) from error
        await audit.record(
            session,
            actor,
            "plan.create",
            target=("plan", plan.id),
            after=form.model_dump(),
        )
        return plan

    async def change(
        self, session: AsyncSession, actor: Actor, name: str, form: PlanUpdate
    ) -> Plan:
        """Change what its users may do, from their next call on."""
        plan = await get(session, name)
        changes = form.model_dump(exclude_unset=True)
        before = {field: getattr(plan, field) for field in changes}
        for field, value in changes.items():
            setattr(plan, field, value)
        await session.flush()
        target = ("plan", plan.id)
        await audit.record(
            session, actor, "plan.change", target=target, before=before, after=changes
        )
        after_commit(session, self.forget)
        return plan

    async def delete(self, session: AsyncSession, actor: Actor, name: str) -> None:
        """Raises ConflictError while somebody has it, and for the one to begin with."""
        plan = await get(session, name)
        users = await session.scalar(select(User.id).where(User.plan == name).limit(1))
        if users is not None or name == FIRST_PLAN:
            raise ConflictError(
                "Users have this plan, or get it when they register: change it, or "
                "give its users another one first.",
                code="plan_in_use",
            )
        await session.delete(plan)
        await session.flush()
        await audit.record(session, actor, "plan.delete", target=("plan", plan.id))

    async def assign(
        self, session: AsyncSession, actor: Actor, user_id: UUID, name: str
    ) -> Limits:
        """Give a user a plan; the balance is filled up to its monthly credits."""
        if await session.scalar(select(Plan.id).where(Plan.name == name)) is None:
            message = "names no plan: GET /api/v1/admin/plans lists them"
            raise ValidationFailedError(
                f"`plan` {message}.", errors=[FieldError(path="plan", message=message)]
            )
        user = await _user(session, user_id)
        before, user.plan = user.plan, name
        await audit.record(
            session,
            actor,
            "plan.assign",
            target=("user", user_id),
            before={"plan": before},
            after={"plan": name},
        )
        return await self._changed(session, user)

    async def override(
        self, session: AsyncSession, actor: Actor, user_id: UUID, form: LimitsUpdate
    ) -> Limits:
        """Give a user limits of their own; those not named are the plan's again."""
        user = await _user(session, user_id)
        before, user.limits = user.limits, form.model_dump(exclude_unset=True)
        await audit.record(
            session,
            actor,
            "limits.change",
            target=("user", user_id),
            before=before,
            after=user.limits,
        )
        return await self._changed(session, user)

    async def _changed(self, session: AsyncSession, user: User) -> Limits:
        await session.flush()
        limits = await limits_of(session, user.id)
        await accounts.fill_up(session, limits, note=f"plan {limits.plan}")
        after_commit(session, lambda: self.forget(user.id))
        return limits


async def listing(session: AsyncSession) -> Sequence[Plan]:
    return (await session.scalars(select(Plan).order_by(Plan.name))).all()


async def get(session: AsyncSession, name: str) -> Plan:
    plan = await session.scalar(select(Plan).where(Plan.name == name))
    if plan is None:
        raise NotFoundError("There is no plan of this name.")
    return plan


async def limits_of(
    session: AsyncSession, user_id: UUID, *, deleted: bool = False
) -> Limits:
    """Raises NotFoundError, and where not `deleted` also for a user who is."""
    return await play(session, _reading(user_id, _OF_ANY if deleted else _OF))


def _reading(user_id: UUID, statement: Statement) -> Script[Limits]:
    return _limits(user_id, (yield statement(user=user_id)).rows)


def _limits(user_id: UUID, rows: Sequence[dict[str, Any]]) -> Limits:
    if not rows:
        raise NotFoundError("There is no user with this id.")
    [values] = rows
    values |= values.pop("own") or {}
    models = values.pop("models")
    return Limits(
        user_id=user_id,
        models=None if models is None else tuple(models),
        **values,
    )


_FOUND = (
    select(
        User.limits.label("own"),
        Plan.name.label("plan"),
        *(getattr(Plan, name) for name in LIMITS),
    )
    .join(Plan, Plan.name == User.plan)
    .where(User.id == bindparam("user"))
)
_OF_ANY = Statement(_FOUND)
_OF = Statement(_FOUND.where(User.status != "deleted"))


async def _user(session: AsyncSession, user_id: UUID) -> User:
    """Not a deleted one: a restoration would undo what was changed of it."""
    user = await session.scalar(
        select(User).where(User.id == user_id, User.status != "deleted")
    )
    if user is None:
        raise NotFoundError("There is no user with this id.")
    return user
