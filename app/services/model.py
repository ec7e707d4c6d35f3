"""Models for clients, and what admins register of them.

What is registered is laid over what the catalogue and the providers tell. Each call of
a model asks for its facts and prices, so each process keeps all that is registered, and
hears over the bus when it changes.
"""

from collections.abc import Mapping
from typing import Any

import orjson
from sqlalchemy import Select, Text, cast, exists, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.bus import Bus
from app.core.database import Database, after_commit
from app.core.exceptions import (
    ConflictError,
    FieldError,
    NotFoundError,
    ValidationFailedError,
)
from app.core.mirror import Mirror
from app.integrations.llm.base import ModelInfo
from app.integrations.llm.catalogue import Catalogue, PriceList, Registration
from app.integrations.llm.registry import Providers
from app.integrations.llm.routing import Router
from app.models import ApiKey, Chat, RegisteredModel
from app.schemas.model import (
    AdminModelRead,
    ModelCreate,
    ModelRead,
    ModelUpdate,
    PricesRead,
    RegisteredRead,
)
from app.services import audit
from app.services.audit import Actor

_FACTS = tuple(RegisteredRead.model_fields)


async def listing(router: Router) -> list[ModelRead]:
    """Routes, models that can be used now, and what could be once it is set up."""
    routes = [_read(route, available=True) for route in await router.offered()]
    for route in routes:
        route.provider = "route"
    return [*routes, *await _known(router.providers)]


async def _known(providers: Providers) -> list[ModelRead]:
    usable = [_read(model, available=True) for model in await providers.list()]
    return usable + [
        _read(model, available=False) for model in providers.unconfigured()
    ]


async def get(router: Router, name: str) -> ModelRead:
    """Raises NotFoundError for one that the list does not have."""
    for model in await listing(router):
        if model.name == name:
            return model
    raise NotFoundError("There is no model of this name.")


class Models:
    """What admins registered, as this process knows it, and how they change it."""

    def __init__(
        self,
        database: Database,
        bus: Bus,
        *,
        catalogue: Catalogue,
        providers: Providers,
    ) -> None:
        self._database = database
        self._catalogue = catalogue
        self._providers = providers
        self._mirror = Mirror(
            bus, "model", read=self._read_all, take=catalogue.register
        )

    async def open(self) -> None:
        await self._mirror.open()

    async def close(self) -> None:
        await self._mirror.close()

    async def listing(self, session: AsyncSession) -> list[AdminModelRead]:
        """All, also those that were taken out of the offer."""
        rows = await session.scalars(select(RegisteredModel))
        registered = {row.name: row for row in rows}
        withdrawn = await self._providers.withdrawn()
        return [
            _read_by_admin(model, registered.get(model.name))
            for model in (
                *await _known(self._providers),
                *(_read(info, available=False) for info in withdrawn),
            )
        ]

    async def register(
        self, session: AsyncSession, actor: Actor, form: ModelCreate
    ) -> AdminModelRead:
        """Raises BadRequestError for no provider of ours, ConflictError if it is."""
        known = await self._providers.described(form.name)
        row = RegisteredModel(**_columns(form))
        read = self._read_as(known, row)
        session.add(row)
        try:
            await session.flush()
        except IntegrityError as error:
            raise ConflictError(
                "This model is registered already: change it with PATCH.",
                code="model_taken",
                errors=[FieldError(path="name", message="is taken")],
            ) from error
        await self._changed(session, actor, "model.register", row, after=_facts(row))
        return read

    async def change(
        self, session: AsyncSession, actor: Actor, name: str, form: ModelUpdate
    ) -> AdminModelRead:
        """It counts from the next call of the model on."""
        row = await _get(session, name)
        before = _facts(row)
        for column, value in _columns(form).items():
            if value is not None or column != "enabled":
                setattr(row, column, value)
        read = self._read_as(await self._providers.described(name), row)
        await session.flush()
        after = _facts(row)
        await self._changed(
            session, actor, "model.change", row, before=before, after=after
        )
        return read

    async def delete(self, session: AsyncSession, actor: Actor, name: str) -> None:
        """Raises ConflictError while a chat or an API key names it."""
        row = await _get(session, name)
        if await session.scalar(naming(name)):
            raise ConflictError(
                "Chats or API keys name this model: take it out of the offer with "
                '`{"enabled": false}`.',
                code="model_in_use",
            )
        await session.delete(row)
        await self._changed(session, actor, "model.delete", row, before=_facts(row))

    def _read_as(self, known: ModelInfo, row: RegisteredModel) -> AdminModelRead:
        """The model as it will count; raises ValidationFailedError if it makes none."""
        info = self._catalogue.as_said(known, _registration(row), by=row.name)
        if info.max_output_tokens >= info.context_window:
            message = (
                f"must be less than the context window of {info.context_window} tokens"
            )
            raise ValidationFailedError(
                f"`max_output_tokens` is {info.max_output_tokens}: it {message}.",
                errors=[FieldError(path="max_output_tokens", message=message)],
            )
        usable = row.enabled and self._providers.usable(info)
        return _read_by_admin(_read(info, available=usable), row)

    async def _changed(
        self,
        session: AsyncSession,
        actor: Actor,
        action: str,
        row: RegisteredModel,
        **told: Mapping[str, Any],
    ) -> None:
        details = {when: {"name": row.name, **facts} for when, facts in told.items()}
        await audit.record(session, actor, action, target=("model", row.id), **details)
        said = _registration(row) if "after" in told else None
        name = row.name

        def count() -> None:
            # Here at once: others hear of it, and read it.
            self._catalogue.register_one(name, said)
            self._mirror.changed()

        after_commit(session, count)

    async def _read_all(self) -> dict[str, Registration]:
        async with self._database.unit_of_work(read_only=True) as session:
            rows = await session.scalars(
                select(RegisteredModel).order_by(RegisteredModel.name)
            )
            return {row.name: _registration(row) for row in rows}


def naming(name: str) -> Select[bool]:
    """Whether a chat or an API key names that model."""
    quoted = orjson.dumps(name).decode()  # as it stands in a key's list
    chats = select(Chat.id).where(Chat.model == name)
    keys = select(ApiKey.id).where(
        ApiKey.revoked_at.is_(None),
        cast(ApiKey.models, Text).contains(quoted, autoescape=True),
    )
    return select(or_(exists(chats), exists(keys)))


async def _get(session: AsyncSession, name: str) -> RegisteredModel:
    row = await session.scalar(
        select(RegisteredModel).where(RegisteredModel.name == name).with_for_update()
    )
    if row is None:
        raise NotFoundError("No model is registered under this name.")
    return row


def _columns(form: ModelCreate | ModelUpdate) -> dict[str, Any]:
    """What was sent, as it is stored."""
    columns = form.model_dump(exclude_unset=isinstance(form, ModelUpdate))
    if columns.get("capabilities") is not None:
        columns["capabilities"] = sorted(columns["capabilities"])
    if columns.get("prices") is not None:
        columns["prices"] = {
            kind: None if price is None else str(price)
            for kind, price in columns["prices"].items()
        }
    return columns


def _facts(row: RegisteredModel) -> dict[str, Any]:
    return {name: getattr(row, name) for name in _FACTS}


def _registration(row: RegisteredModel) -> Registration:
    able, prices = row.capabilities, row.prices
    return Registration(
        enabled=row.enabled,
        context_window=row.context_window,
        max_output_tokens=row.max_output_tokens,
        capabilities=None if able is None else frozenset(able),
        prices=None if prices is None else PriceList.model_validate(prices),
    )


def _read(model: ModelInfo, *, available: bool) -> ModelRead:
    return ModelRead(
        name=model.name,
        provider=model.provider,
        capabilities=sorted(model.capabilities),
        context_window=model.context_window,
        max_output_tokens=model.max_output_tokens,
        dimensions=model.dimensions,
        prices=model.prices and PricesRead.model_validate(model.prices),
        available=available,
    )


def _read_by_admin(model: ModelRead, row: RegisteredModel | None) -> AdminModelRead:
    registered = row and RegisteredRead.model_validate(row)
    return AdminModelRead(**model.model_dump(), registered=registered)
