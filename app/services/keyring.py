"""Keys as they come with requests: known, alive, and used from where they may be."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any
from uuid import UUID

from sqlalchemy import Select, and_, or_, select, update

from app.core.cache import Cache
from app.core.database import Database, utcnow
from app.core.exceptions import AppError, UnauthenticatedError
from app.core.keys import KeyKind, kind_of
from app.core.tokens import fingerprint
from app.models import ApiKey, KeyLimits, ServiceKey, User

_CACHED = 10_000
_NOTE_SECONDS = 60.0

_Table = type[ApiKey] | type[ServiceKey]
_TABLES: dict[KeyKind, _Table] = {KeyKind.USER: ApiKey, KeyKind.SERVICE: ServiceKey}


@dataclass(frozen=True, slots=True)
class Grant:
    """What a key allows."""

    id: UUID
    owner: UUID | None
    """The user it acts for; a service key acts for nobody."""
    name: str
    scopes: frozenset[str]
    expires_at: datetime | None
    networks: tuple[IPv4Network | IPv6Network, ...]
    limits: KeyLimits | None = None
    """Of a user's key."""

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
        if kind_of(key) is not kind:  # so a wrong checksum costs no query
            raise _refused()
        hashed = fingerprint(key)
        grant = await self._cache.get(hashed, lambda: self._load(hashed, kind))
        if grant.expires_at is not None and grant.expires_at <= utcnow():
            raise _refused()
        if not grant.admits(ip):
            raise UnauthenticatedError("This key may not be used from this address.")
        self._used[kind].add(grant.id)
        return grant

    def owner_of(self, key: str) -> UUID | None:
        """Whose key it is, where that is known without asking."""
        grant = self._cache.peek(fingerprint(key))
        return grant.owner if grant else None

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
        table = _TABLES[kind]
        statement = live(table).where(table.key_hash == hashed)
        async with self._database.unit_of_work(read_only=True) as session:
            key = await session.scalar(statement)
        if key is None:
            raise _refused()
        return Grant(
            id=key.id,
            owner=key.user_id if isinstance(key, ApiKey) else None,
            name=key.name,
            scopes=frozenset(key.scopes),
            expires_at=key.expires_at,
            networks=tuple(ip_network(network) for network in key.allowed_ips),
            limits=key.limits if isinstance(key, ApiKey) else None,
        )


def live(table: _Table) -> Select[Any]:
    """The keys that count: not revoked, not expired, of an active account."""
    statement = select(table).where(
        and_(
            table.revoked_at.is_(None),
            or_(table.expires_at.is_(None), table.expires_at > utcnow()),
        )
    )
    if table is ApiKey:
        return statement.join(User, User.id == ApiKey.user_id).where(
            User.status == "active"
        )
    return statement


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
