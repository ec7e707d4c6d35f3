"""Failed logins: after a few of them an account must wait, and so must an address.

An account has a counter for each place (network) that its owner has logged in from, and
one for all other places together. So a stranger who guesses on and on keeps strangers
waiting, but not the owner where they usually are; and an owner who is somewhere new
gets in by resetting the password, which makes that place a known one.

All attempts on one account, and all from one address, pass here one after the other:
however many are made at once, no more than the limit are judged by their password.
"""

import hmac
import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.config import LoginSettings, Settings
from app.core.database import Database, utcnow
from app.core.exceptions import RateLimitedError
from app.core.ratelimit import network
from app.core.tokens import derive
from app.models import LoginCounter

_ACCOUNT_MEMORY = timedelta(days=1)  # after the last failure
_ADDRESS_MEMORY = timedelta(hours=1)  # after the first
_KNOWN_FOR = timedelta(days=30)  # after the last login from there
_INSERTS: dict[str, Callable[[Any], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


AccountKind = Literal["user", "staff", "admin"]


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a login is about; `id` is None where nobody has this name."""

    kind: AccountKind
    name: str
    id: UUID | None
    email: str | None = None
    by: Literal["password", "provider"] = "password"
    """The first factor. Each is counted for itself: who has not even that of a
    provider cannot lock its user out there."""

    @property
    def key(self) -> str:
        who = str(self.id or f"{self.kind} {self.name}")
        return who if self.by == "password" else f"{who} by provider"


class Attempt:
    """One login, whose outcome is to be told: `failed`, or `Lockout.passed`."""

    def __init__(
        self,
        settings: LoginSettings,
        account: Account,
        ip: str | None,
        *,
        counter: LoginCounter,
        address: LoginCounter,
    ) -> None:
        self.account = account
        self.ip = ip
        self._settings = settings
        self._address = address
        self.counter = counter
        self.locked = _is_locked(counter, utcnow())
        """Then it fails whatever was sent, and counts for nothing."""

    def failed(self) -> timedelta | None:
        """Count it; how long the account is locked, if this is the first lock."""
        if self.locked:
            return None
        settings, counter, address, now = (
            self._settings,
            self.counter,
            self._address,
            utcnow(),
        )
        address.failures += 1
        address.forget_at = address.forget_at or now + _ADDRESS_MEMORY
        if address.failures >= settings.lockout_address_failures:
            address.locked_until = address.forget_at
        counter.failures += 1
        counter.forget_at = now + _ACCOUNT_MEMORY
        beyond = counter.failures - settings.lockout_failures
        if beyond < 0:
            return None
        seconds = settings.lockout_seconds * 2 ** min(beyond, 30)
        wait = timedelta(seconds=min(seconds, settings.lockout_max_seconds))
        counter.locked_until = now + wait
        return None if beyond else wait


class Lockout:
    def __init__(self, settings: Settings) -> None:
        self._settings = settings.login
        secret = settings.security.secret_key.get_secret_value().encode()
        self._secret = derive(secret, b"login counters")

    async def begin(
        self, session: AsyncSession, account: Account, ip: str | None
    ) -> Attempt:
        """Hold the counters of a login until the transaction's end.

        Raises RateLimitedError where the address has failed too often.
        """
        place, strangers, address = (
            self._place(account.key, ip),
            self._hash(account.key),
            self._hash(_network(ip)),
        )
        ids = {strangers: account.id, address: None}
        for key in sorted(ids):  # in one order, so that no two wait for each other
            await _put(session, key, ids[key], expires_at=utcnow() + _ACCOUNT_MEMORY)
        found = await session.scalars(
            select(LoginCounter)
            .where(LoginCounter.key.in_([place, strangers, address]))
            .with_for_update()
            .execution_options(populate_existing=True)
        )
        rows = {row.key: row for row in found}
        now = utcnow()
        for row in rows.values():
            if row.forget_at is not None and row.forget_at <= now:
                _reset(row)
        if _is_locked(rows[address], now):
            raise _too_many(rows[address], now)
        known = place in rows and rows[place].expires_at > now
        return Attempt(
            self._settings,
            account,
            ip,
            counter=rows[place if known else strangers],
            address=rows[address],
        )

    async def passed(self, session: AsyncSession, attempt: Attempt) -> None:
        """Clear the counter that counts here; what the address did is not forgiven."""
        assert attempt.account.id is not None
        _reset(attempt.counter)
        await self.welcome(session, attempt.account.id, attempt.ip)

    async def welcome(
        self, session: AsyncSession, account_id: UUID, ip: str | None
    ) -> None:
        """From now on this is a place where the account's owner is known."""
        key = self._place(str(account_id), ip)
        await _put(session, key, account_id, expires_at=utcnow() + _KNOWN_FOR)

    async def clear(self, session: AsyncSession, account_id: UUID) -> None:
        """Unlock an account, wherever it is locked."""
        await session.execute(
            update(LoginCounter)
            .where(LoginCounter.account_id == account_id)
            .values(failures=0, forget_at=None, locked_until=None)
        )

    async def forget(self, session: AsyncSession, account_id: UUID) -> None:
        """Delete all that is kept of an account here."""
        await session.execute(
            delete(LoginCounter).where(LoginCounter.account_id == account_id)
        )

    async def purge(self, database: Database) -> None:
        await database.delete_in_chunks(
            LoginCounter, LoginCounter.expires_at < utcnow()
        )

    def _place(self, account: str, ip: str | None) -> bytes:
        return self._hash(f"{account} at {_network(ip)}")

    def _hash(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode(), "sha256")


async def _put(
    session: AsyncSession, key: bytes, account_id: UUID | None, *, expires_at: datetime
) -> None:
    """Make sure of a row, and hold it."""
    insert = _INSERTS[session.get_bind().dialect.name](LoginCounter)
    await session.execute(
        insert.values(
            id=uuid7(),
            key=key,
            account_id=account_id,
            failures=0,
            expires_at=expires_at,
        ).on_conflict_do_update(index_elements=["key"], set_={"expires_at": expires_at})
    )


def _network(ip: str | None) -> str:
    return network(ip) if ip else "unknown"


def _is_locked(counter: LoginCounter, now: datetime) -> bool:
    return counter.locked_until is not None and counter.locked_until > now


def _reset(counter: LoginCounter) -> None:
    counter.failures, counter.forget_at, counter.locked_until = 0, None, None


def _too_many(address: LoginCounter, now: datetime) -> RateLimitedError:
    assert address.locked_until is not None
    seconds = math.ceil((address.locked_until - now).total_seconds())
    return RateLimitedError(
        f"Too many logins from this address have failed: try again in {seconds} s.",
        headers={"Retry-After": str(seconds)},
    )
