"""Settings that admins change while the server runs.

The closed list of them is `core/config/live.py`. What the environment or a `.env` file
sets counts over what admins did, so it can never be changed behind somebody's back.
Each process keeps what is stored laid over the settings that it began with.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from sqlalchemy import delete, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.bus import Bus
from app.core.config import (
    CHANGEABLE,
    ConfigError,
    LiveSettings,
    Settings,
    changed,
    variables,
)
from app.core.database import Database, after_commit, utcnow
from app.core.exceptions import ConflictError, FieldError, ValidationFailedError
from app.core.mirror import Mirror
from app.integrations.llm.routing import Router
from app.models import Setting
from app.schemas.setting import SettingRead, SettingsUpdate
from app.services import audit
from app.services.audit import Actor

_INSERTS: dict[str, Callable[[Any], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}
_log = structlog.get_logger()

Stored = Mapping[str, str]
"""Values by variable, as the environment would have them."""


class ChangedSettings:
    """Lays what admins changed over the settings, in every process."""

    def __init__(
        self, live: LiveSettings, *, database: Database, bus: Bus, router: Router
    ) -> None:
        self._live = live
        self._database = database
        self._router = router
        self._mirror = Mirror(bus, "setting", read=self._read, take=self._take)

    async def open(self) -> None:
        await self._mirror.open()

    async def close(self) -> None:
        await self._mirror.close()

    async def listing(self, session: AsyncSession) -> list[SettingRead]:
        """All that may be changed, whatever set them."""
        return self._shown(await _stored(session))

    async def change(
        self, session: AsyncSession, actor: Actor, form: SettingsUpdate
    ) -> list[SettingRead]:
        """Change all that the form names, or nothing; it counts at once.

        Raises ConflictError for what the environment sets, ValidationFailedError for
        what a start would refuse, and BadRequestError for a model that is not there.
        """
        changes = {
            name.upper(): value
            for name, value in form.model_dump(exclude_unset=True).items()
        }
        self._refuse_set(changes)
        if changes.get("DEFAULT_MODEL"):
            await self._router.candidates(changes["DEFAULT_MODEL"])
        before = await _stored(session, lock=True)
        given = {**before, **_validated(self._live.started, changes)}
        after = {variable: v for variable, v in given.items() if v is not None}
        for variable in changes:
            await _store(session, variable, after.get(variable))
        await audit.record(
            session,
            actor,
            "setting.change",
            before=self._values(before, changes),
            after=self._values(after, changes),
        )

        def count() -> None:
            self._take(after)  # here at once; others hear of it, and read it
            self._mirror.changed()

        after_commit(session, count)
        return self._shown(after)

    def _refuse_set(self, changes: Iterable[str]) -> None:
        sources = self._live.started.sources
        for variable in changes:
            if variable in sources:
                raise ConflictError(
                    f"{variable} is set by {sources[variable]}, which counts over what "
                    "is changed here: change it there and restart.",
                    code="set_by_environment",
                    errors=[FieldError(path=variable.lower(), message="is set there")],
                )

    def _shown(self, stored: Stored) -> list[SettingRead]:
        known = variables()
        started, now = self._live.started, self._laid_over(stored)
        return [
            SettingRead(
                name=variable.lower(),
                variable=variable,
                value=_value(now, variable),
                default=known[variable][1].default,
                source=(
                    "environment"
                    if variable in started.sources
                    else "database"
                    if variable in stored
                    else "default"
                ),
                description=known[variable][1].description or "",
            )
            for variable in CHANGEABLE
        ]

    def _values(self, stored: Stored, changes: Iterable[str]) -> dict[str, Any]:
        """What counts of these with that stored, as the audit tells it."""
        settings = self._laid_over(stored)
        return {variable.lower(): _value(settings, variable) for variable in changes}

    async def _read(self) -> Stored:
        async with self._database.unit_of_work(read_only=True) as session:
            return await _stored(session)

    def _take(self, stored: Stored) -> None:
        self._live.current = self._laid_over(stored)

    def _laid_over(self, stored: Stored) -> Settings:
        settings = self._live.started
        for variable, value in stored.items():
            if variable in settings.sources:
                continue
            try:
                settings = changed(settings, variable, value)
            except ConfigError as error:  # an earlier version took it
                _log.warning("stored setting is not valid", reason=str(error))
        return settings


async def _stored(session: AsyncSession, *, lock: bool = False) -> Stored:
    statement = select(Setting).where(Setting.variable.in_(CHANGEABLE))
    if lock:
        statement = statement.order_by(Setting.variable).with_for_update()
    rows = await session.scalars(statement)
    return {row.variable: row.value for row in rows}


async def _store(session: AsyncSession, variable: str, value: str | None) -> None:
    """None is the default again."""
    if value is None:
        await session.execute(delete(Setting).where(Setting.variable == variable))
        return
    now = utcnow()
    insert = _INSERTS[session.get_bind().dialect.name](Setting)
    await session.execute(
        insert.values(
            id=uuid7(), variable=variable, value=value, created_at=now, updated_at=now
        ).on_conflict_do_update(
            index_elements=["variable"], set_={"value": value, "updated_at": now}
        )
    )


def _validated(settings: Settings, changes: Mapping[str, Any]) -> dict[str, str | None]:
    """The values as they are stored; raises ValidationFailedError as a start would."""
    values: dict[str, str | None] = {}
    errors: list[FieldError] = []
    for variable, value in changes.items():
        values[variable] = None
        if value not in (None, ""):  # as the environment's, an empty one is unset
            try:
                taken = _value(changed(settings, variable, value), variable)
                values[variable] = str(taken)
            except ConfigError as error:
                message = str(error).removeprefix(f"{variable}: ")
                errors.append(FieldError(path=variable.lower(), message=message))
    if errors:
        words = "; ".join(f"{e['path']}: {e['message']}" for e in errors)
        raise ValidationFailedError(words, errors=errors)
    return values


def _value(settings: Settings, variable: str) -> Any:
    group, info = variables()[variable]
    area = getattr(settings, group)
    (name,) = (n for n, f in type(area).model_fields.items() if f is info)
    return getattr(area, name)
