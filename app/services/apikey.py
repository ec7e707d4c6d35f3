"""API keys: issued once, stored as a hash, ended at once; leaked ones of every kind."""

import re
from collections.abc import Sequence
from dataclasses import asdict
from datetime import timedelta
from functools import partial
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database, after_commit, utcnow
from app.core.exceptions import ConflictError, NotFoundError
from app.core.keys import KeyKind, new_key, prefix_of
from app.core.tokens import fingerprint
from app.models import Admin, ApiKey, ServiceKey, User
from app.schemas.apikey import (
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyLimits,
    ApiKeyRead,
    ApiKeyUpdate,
    KeyCreated,
    KeyRead,
    KeyRotation,
    LeakReport,
)
from app.services import audit, mail
from app.services import job as jobs
from app.services.authorization import Principal, owned, require, visible_to
from app.services.keyring import has_text
from app.services.principal import Principals

K = TypeVar("K", ApiKey, ServiceKey)

MOST_KEYS = 100
"""Of one user."""

_SPARE = timedelta(seconds=5)
"""After which a job looks whether a reported key has ended."""

_ADDRESS = re.compile(r"https?://[!-~]{1,500}")
_LIMITS = tuple(ApiKeyLimits.model_fields)
_MAY_BE_NULL = {"expires_at", *_LIMITS}


class ApiKeys:
    """One user's keys, for one request."""

    def __init__(
        self,
        session: AsyncSession,
        owner: Principal,
        principals: Principals,
        *,
        ip: str | None,
    ) -> None:
        self._session = session
        self._owner = owner
        self._principals = principals
        self._actor = audit.Actor("user", owner.user_id, ip)

    async def create(self, form: ApiKeyCreate) -> ApiKeyCreated:
        """Make a key, and mail its owner; raises ConflictError for one too many."""
        await self._refuse_too_many()
        text = new_key(KeyKind.USER)
        key = ApiKey(
            user_id=self._owner.user_id,
            prefix=prefix_of(text),
            key_hash=fingerprint(text),
            **form.model_dump(),
        )
        self._session.add(key)
        await self._session.flush()
        await self._tell_owner(key)
        await self._record(key, "key.create", after=facts(key))
        return ApiKeyCreated(**ApiKeyRead.model_validate(key).model_dump(), key=text)

    async def listing(self) -> Sequence[ApiKey]:
        """Those that are not revoked, the newest first."""
        keys = await self._session.scalars(
            visible_to(self._owner, ApiKey)
            .where(ApiKey.revoked_at.is_(None))
            .order_by(ApiKey.id.desc())
        )
        return keys.all()

    async def change(self, key_id: UUID, form: ApiKeyUpdate) -> ApiKey:
        key = await self._one(key_id)
        before = facts(key)
        for field, value in form.model_dump(exclude_unset=True).items():
            if value is not None or field in _MAY_BE_NULL:
                setattr(key, field, value)
        await self._session.flush()
        await self._changed(key, "key.change", before=before, after=facts(key))
        return key

    async def rotate(self, key_id: UUID, form: KeyRotation) -> ApiKeyCreated:
        """A new key in the place of the old one, which ends after its grace.

        With none it ends at once; so does one that had its grace from before.
        """
        key = await self._one(key_id)
        before, ends = facts(key), key.previous is not None
        if form.grace_seconds:
            key.previous_prefix, key.previous_hash = key.prefix, key.key_hash
            key.previous_until = utcnow() + timedelta(seconds=form.grace_seconds)
        else:
            ends = True
            _forget_previous(key)
        text = new_key(KeyKind.USER)
        key.prefix, key.key_hash = prefix_of(text), fingerprint(text)
        key.last_used_at = None
        await self._session.flush()
        await self._changed(
            key, "key.rotate", ends=ends, before=before, after=facts(key)
        )
        return ApiKeyCreated(**ApiKeyRead.model_validate(key).model_dump(), key=text)

    async def end_previous(self, key_id: UUID) -> None:
        """End the grace of a rotation; raises NotFoundError where there is none."""
        key = await self._one(key_id)
        if key.previous is None:
            raise NotFoundError("This API key has no older one that still works.")
        before = facts(key)
        _forget_previous(key)
        await self._changed(key, "key.end_previous", before=before, after=facts(key))

    async def revoke(self, key_id: UUID) -> None:
        key = await self._one(key_id)
        key.revoked_at = utcnow()
        await self._changed(key, "key.revoke", before=facts(key))

    async def _one(self, key_id: UUID) -> ApiKey:
        key = await require(self._session, self._owner, ApiKey, key_id, lock=True)
        if key.revoked_at is not None:
            raise NotFoundError("There is no API key with this id.")
        return key

    async def _refuse_too_many(self) -> None:
        held = await self._session.scalar(
            select(func.count()).where(
                owned(ApiKey, self._owner.user_id), ApiKey.revoked_at.is_(None)
            )
        )
        if held is None or held >= MOST_KEYS:
            raise ConflictError(
                f"There can be at most {MOST_KEYS} API keys: revoke one that is not "
                "used.",
                code="too_many_keys",
            )

    async def _tell_owner(self, key: ApiKey) -> None:
        owner = await self._session.get_one(User, key.user_id)
        await mail.send(
            self._session,
            "key_created",
            to=owner.email,
            user_id=owner.id,
            name=key.name,
            prefix=key.prefix,
            scopes=", ".join(key.scopes),
        )

    async def _changed(
        self, key: ApiKey, action: str, *, ends: bool = True, **details: dict[str, Any]
    ) -> None:
        """`ends`: something that it allowed is allowed no more."""
        tell = self._principals.forget if ends else self._principals.reread
        after_commit(self._session, lambda: tell(key.id))
        await self._record(key, action, **details)

    async def _record(
        self, key: ApiKey, action: str, **details: dict[str, Any]
    ) -> None:
        target = ("key", key.id)
        await audit.record(self._session, self._actor, action, target=target, **details)


class Leak(NamedTuple):
    """What was reported: the hashes of keys, or of anything, where it was, by whom."""

    hashes: list[str]
    url: str | None
    ip: str | None


def report_leak(session: AsyncSession, form: LeakReport, *, ip: str | None) -> Leak:
    """Have what was reported end: the same work, whatever it is (ADR 0019).

    `end_leaked` is to be called right after it. The job that is asked for here does
    what a process that dies before leaves undone.
    """
    leak = Leak([fingerprint(text).hex() for text in form.texts], form.url, ip)
    jobs.enqueue(
        session, "apikey.end_leaked", run_at=utcnow() + _SPARE, **leak._asdict()
    )
    return leak


async def end_leaked(database: Database, principals: Principals, leak: Leak) -> None:
    """Revoke every key of these, whoever has it, and tell whom it concerns; once."""
    hashes = [bytes.fromhex(hashed) for hashed in leak.hashes]
    async with database.unit_of_work() as session:
        leaked: list[ApiKey | ServiceKey] = [
            *await _lock_living(session, ApiKey, hashes),
            *await _lock_living(session, ServiceKey, hashes),
        ]
        for key in leaked:
            key.revoked_at = utcnow()
            after_commit(session, partial(principals.forget, key.id))
            await _tell_of_leak(session, key, leak)


async def _lock_living(
    session: AsyncSession, table: type[K], hashes: Sequence[bytes]
) -> Sequence[K]:
    """Also those of accounts that are not active: they may be again."""
    found = await session.scalars(
        select(table)
        .where(has_text(table, hashes, utcnow()), table.revoked_at.is_(None))
        .order_by(table.id)
        .with_for_update()
    )
    return found.all()


async def _tell_of_leak(
    session: AsyncSession, key: ApiKey | ServiceKey, leak: Leak
) -> None:
    owner = key.user_id if isinstance(key, ApiKey) else None
    for address in await _concerned(session, key):
        await mail.send(
            session,
            "key_leaked",
            to=address,
            user_id=owner,
            kind="API key" if owner else "service key",
            name=key.name,
            prefix=key.prefix,
            where=_where(leak.url),
            **mail.circumstances(utcnow(), None),
        )
    await audit.record(
        session,
        audit.Actor("system", ip=leak.ip),
        "key.leak" if owner else "service_key.leak",
        # Of its user's: an erasure empties what is told of them.
        target=("user", owner) if owner else ("service_key", key.id),
        before={"id": key.id, **facts(key)},
        after={"url": leak.url} if leak.url else None,
    )


async def _concerned(session: AsyncSession, key: ApiKey | ServiceKey) -> list[str]:
    """The address of its owner; those of the admins who give out service keys."""
    if isinstance(key, ApiKey):
        owner = await session.get_one(User, key.user_id)
        return [owner.email] if owner.status == "active" else []
    admins = await session.scalars(
        select(Admin).where(Admin.status == "active").order_by(Admin.id)
    )
    return [admin.email for admin in admins if "settings" in admin.permissions]


def _where(url: str | None) -> str:
    """For a mail, which is no place for what strangers write but an address."""
    told = url is not None and _ADDRESS.fullmatch(url)
    return f" at {url}" if told else "; where, was not told"


def _forget_previous(key: ApiKey) -> None:
    key.previous_prefix = key.previous_hash = key.previous_until = None


def facts(key: ApiKey | ServiceKey) -> dict[str, Any]:
    """What the audit tells of a key; limits that there are."""
    told = {
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "allowed_ips": key.allowed_ips,
        "expires_at": key.expires_at,
    }
    if isinstance(key, ApiKey):
        limits = {name: getattr(key, name) for name in _LIMITS}
        previous = asdict(key.previous) if key.previous is not None else None
        more = limits | {"previous": previous}
        told |= {name: value for name, value in more.items() if value is not None}
    return told


def shown_once(key: ServiceKey, text: str) -> KeyCreated:
    """The one answer that holds the key itself."""
    read = KeyRead.model_validate(key)
    return KeyCreated(**read.model_dump(), key=text)
