"""Keys as they come with requests: known, alive, and used from where they may be."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from uuid import UUID

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    and_,
    bindparam,
    or_,
    select,
    update,
)

from app.core.cache import Cache
from app.core.database import Database, utcnow
from app.core.exceptions import AppError, UnauthenticatedError
from app.core.keys import KeyKind, kind_of
from app.core.statements import Statement
from app.core.tokens import fingerprint
from app.models import ApiKey, KeyLimits, ServiceKey, User
from app.services.authorization import Principal

_CACHED = 10_000
_NOTE_SECONDS = 60.0

_Table = type[ApiKey] | type[ServiceKey]
_TABLES: dict[KeyKind, _Table] = {KeyKind.USER: ApiKey, KeyKind.SERVICE: ServiceKey}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key allows."""

    id: UUID
    kind: KeyKind
    name: str
    scopes: frozenset[str]
    expires_at: datetime | None
    """When this text of it ends, which a rotation may have been about."""
    networks: tuple[IPv4Network | IPv6Network, ...]
    principal: Principal | None
    """The user it acts for, and how; a service key acts for nobody."""

    @property
    def owner(self) -> UUID | None:
        return None if self.principal is None else self.principal.user_id

    @property
    def expired(self) -> bool:
        return self.expires_at is not None and self.expires_at <= utcnow()

    def admits(self, ip: str | None) -> bool:
        if not self.networks:
            return True
        address = _address(ip) if ip else None
        return address is not None and any(address in n for n in self.networks)


class Keyring:
    """The keys that were used a moment ago; the database is asked for the others."""

    def __init__(self, database: Database, *, ttl: Callable[[], float]) -> None:
        self._database = database
        self._cache: Cache[bytes, Grant] = Cache(size=_CACHED, ttl=ttl)
        self._used: dict[KeyKind, set[UUID]] = {kind: set() for kind in KeyKind}
        self._noting: asyncio.Task[None] | None = None

    async def get(self, key: str, kind: KeyKind, *, ip: str | None) -> Grant:
        """Raises UnauthenticatedError for whatever is no usable key of this kind."""
        return self.known(key, kind, ip=ip) or await self._ask(key, kind, ip=ip)

    def known(self, key: str, kind: KeyKind, *, ip: str | None) -> Grant | None:
        """The same at once; None where the database must tell, or nothing is allowed.

        Calls of the gateway begin here, so it does no more than it must.
        """
        grant = self._cache.find(fingerprint(key))
        if (
            grant is None
            or grant.kind is not kind
            or grant.expired
            or not grant.admits(ip)
        ):
            return None
        self._used[kind].add(grant.id)
        return grant

    async def _ask(self, key: str, kind: KeyKind, *, ip: str | None) -> Grant:
        if kind_of(key) is not kind:  # so a wrong checksum costs no query
            raise _refused()
        hashed = fingerprint(key)
        grant = await self._cache.get(hashed, lambda: self._load(hashed, kind))
        if grant.expired:
            raise _refused()
        if not grant.admits(ip):
            raise UnauthenticatedError("This key may not be used from this address.")
        self._used[kind].add(grant.id)
        return grant

    def drop(self, condition: Callable[[Grant], bool]) -> None:
        self._cache.drop(condition)

    async def open(self) -> None:
        self._noting = asyncio.create_task(self._note_now_and_then())

    async def close(self) -> None:
        if self._noting is not None:
            self._noting.cancel()
            with suppress(asyncio.CancelledError):
                await self._noting
        with suppress(AppError):
            await self.note_use()

    async def note_use(self) -> None:
        """Store which keys were used since the last time."""
        used = {kind: ids for kind, ids in self._used.items() if ids}
        if not used:
            return
        async with self._database.unit_of_work() as session:
            for kind, ids in used.items():
                self._used[kind] = set()
                table = _TABLES[kind]
                await session.execute(
                    update(table)
                    .where(table.id.in_(ids))
                    # Being used is no change of a key.
                    .values(last_used_at=utcnow(), updated_at=table.updated_at)
                    .execution_options(synchronize_session=False)
                )

    async def _note_now_and_then(self) -> None:
        while True:
            await asyncio.sleep(_NOTE_SECONDS)
            with suppress(AppError):
                await self.note_use()

    async def _load(self, hashed: bytes, kind: KeyKind) -> Grant:
        asked = _READ[kind](hash=hashed, now=utcnow())
        rows = (await self._database.run(asked, brief=True)).rows
        if not rows:
            raise _refused()
        return _grant(kind, rows[0], hashed)


def _grant(kind: KeyKind, key: Mapping[str, Any], hashed: bytes) -> Grant:
    ends = [key["expires_at"]]
    if key.get("previous_hash") == hashed:
        ends.append(key["previous_until"])
    return Grant(
        id=key["id"],
        kind=kind,
        name=key["name"],
        scopes=frozenset(key["scopes"]),
        expires_at=min((end for end in ends if end is not None), default=None),
        networks=tuple(ip_network(network) for network in key["allowed_ips"]),
        principal=_principal(key) if kind is KeyKind.USER else None,
    )


def _principal(key: Mapping[str, Any]) -> Principal:
    models = key["models"]
    return Principal(
        user_id=key["user_id"],
        session_id=key["id"],
        scopes=frozenset(key["scopes"]),
        key=KeyLimits(
            id=key["id"],
            models=None if models is None else tuple(models),
            requests_per_minute=key["requests_per_minute"],
            tokens_per_minute=key["tokens_per_minute"],
            daily_credit_limit=key["daily_credit_limit"],
            cache_seconds=key["cache_seconds"],
        ),
    )


def has_text(table: _Table, hashes: Sequence[Any], now: Any) -> ColumnElement[bool]:
    """Which keys are one of these, also as they were before a rotation."""
    found: ColumnElement[bool] = table.key_hash.in_(hashes)
    if table is ApiKey:
        before = ApiKey.previous_hash.in_(hashes)
        return or_(found, and_(before, ApiKey.previous_until > now))
    return found


def live(table: _Table, now: Any) -> Select[Any]:
    """The keys that count: not revoked, not expired, of an active account."""
    statement = select(*table.__table__.columns).where(
        and_(
            table.revoked_at.is_(None),
            or_(table.expires_at.is_(None), table.expires_at > now),
        )
    )
    if table is ApiKey:
        return statement.join(User, User.id == ApiKey.user_id).where(
            User.status == "active"
        )
    return statement


def _read(kind: KeyKind) -> Statement:
    """A key by its `hash`: without a session, since thousands may come in a second."""
    table: _Table = _TABLES[kind]
    hashed = bindparam("hash", type_=table.key_hash.type)
    now: BindParameter[datetime] = bindparam("now")
    found = live(table, now).where(has_text(table, [hashed], now))
    columns: list[Any] = [
        table.id,
        table.name,
        table.scopes,
        table.allowed_ips,
        table.expires_at,
    ]
    if table is ApiKey:
        columns += [ApiKey.user_id, ApiKey.previous_hash, ApiKey.previous_until]
        columns += [ApiKey.models, ApiKey.daily_credit_limit, ApiKey.cache_seconds]
        columns += [ApiKey.requests_per_minute, ApiKey.tokens_per_minute]
    return Statement(found.with_only_columns(*columns))


_READ = {kind: _read(kind) for kind in KeyKind}


@lru_cache(maxsize=4096)
def _address(ip: str) -> Any:
    """The address; an IPv4 one in IPv6's clothes as what it is."""
    try:
        address = ip_address(ip)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _refused() -> UnauthenticatedError:
    return UnauthenticatedError("This key is not valid.")
