"""For external applications: whose a token is, and what was used up there."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Row, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.cache import Cache
from app.core.database import Database, utcnow
from app.core.exceptions import UnauthenticatedError
from app.core.keys import KeyKind, looks_like_key
from app.core.tokens import Tokens
from app.integrations.llm.base import Usage
from app.models import ReportedUsage, User
from app.schemas.introspection import (
    Introspection,
    IntrospectionForm,
    UsageBooked,
    UsageEntry,
)
from app.schemas.usage import UsageLimits
from app.services import usage
from app.services.credits.afterwards import charge
from app.services.credits.purse import Call
from app.services.keyring import Grant
from app.services.principal import Principals

CREDITS = "credits"
"""The kind of usage that is paid for."""

_CACHED = 10_000
_SECONDS = 1.0
_EVERYTHING = "*"
_INSERTS: dict[str, Callable[[Any], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


class Introspector:
    """Tells external applications whose a token is.

    Whether it is alive is told as of now; name, plan and limits as of a second ago,
    which is how old what was used is anyway.
    """

    def __init__(
        self, database: Database, principals: Principals, tokens: Tokens
    ) -> None:
        self._database = database
        self._principals = principals
        self._tokens = tokens
        self._profiles: Cache[UUID, _Profile] = Cache(
            size=_CACHED, ttl=lambda: _SECONDS
        )

    async def introspect(self, form: IntrospectionForm) -> Introspection:
        """What is true of the token, by the rules that hold for it here."""
        try:
            found = await self._credential(form)
            assert found.sub is not None
            profile = await self._profile(found.sub)
        except UnauthenticatedError:
            return Introspection(active=False)
        found.username = profile.username
        found.plan, found.limits = profile.limits.plan, profile.limits
        return found

    async def _credential(self, form: IntrospectionForm) -> Introspection:
        if looks_like_key(form.token):
            keys = self._principals.keys
            key = await keys.get(form.token, KeyKind.USER, ip=form.client_ip)
            return Introspection(
                active=True,
                kind="user",
                sub=key.owner,
                sid=key.id,
                scope=" ".join(sorted(key.scopes)),
                exp=int(key.expires_at.timestamp()) if key.expires_at else None,
            )
        claims = self._tokens.read_access(form.token)
        principal = await self._principals.of(claims)
        return Introspection(
            active=True,
            kind="user",
            sub=principal.user_id,
            sid=principal.session_id,
            scope=_EVERYTHING,
            exp=claims.expires_at,
        )

    async def _profile(self, user_id: UUID) -> "_Profile":
        return await self._profiles.get(user_id, lambda: self._load(user_id))

    async def _load(self, user_id: UUID) -> "_Profile":
        name = select(User.username).where(User.id == user_id)
        async with self._database.unit_of_work(read_only=True) as session:
            user = (await session.execute(name)).one_or_none()
            if user is None:  # erased this moment
                raise UnauthenticatedError("This account is no more.")
            return _Profile(user.username, await usage.limits(session, user_id))


@dataclass(frozen=True, slots=True)
class _Profile:
    username: str | None
    limits: UsageLimits


async def report(
    session: AsyncSession,
    service: Grant,
    reports: Sequence[UsageEntry],
) -> UsageBooked:
    """Book what users used up; a report whose id was booked before counts no more.

    Credits are taken from the balance; what it does not hold, the installation bears.
    """
    subjects = {report.subject for report in reports}
    known = set(await session.scalars(select(User.id).where(User.id.in_(subjects))))
    rows = [
        {
            "id": uuid7(),
            "service_key_id": service.id,
            "user_id": report.subject,
            "report_id": report.id or uuid7(),
            "kind": report.kind,
            "amount": report.amount,
            "created_at": utcnow(),
        }
        for report in reports
        if report.subject in known
    ]
    booked = await _insert(session, rows) if rows else []
    spent: Counter[UUID] = Counter()
    for entry in booked:
        if entry.kind == CREDITS:
            spent[entry.user_id] += entry.amount
    call = Call(kind="external", model=service.name)
    for user_id in sorted(spent):  # always in this order: they are locked
        await charge(session, user_id, spent[user_id], Usage(0, 0), call)
    return UsageBooked(booked=len(booked), unknown=sorted(subjects - known))


async def _insert(
    session: AsyncSession, rows: list[dict[str, Any]]
) -> Sequence[Row[UUID, str, int]]:
    """The user, kind and amount of each row that is new."""
    insert = _INSERTS[session.get_bind().dialect.name](ReportedUsage)
    new = insert.values(rows).on_conflict_do_nothing()
    table = ReportedUsage
    result = await session.execute(
        new.returning(table.user_id, table.kind, table.amount)
    )
    return result.all()
