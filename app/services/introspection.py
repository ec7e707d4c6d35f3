"""For external applications: whose a token is, and what was used up there."""

from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.database import Database, changed_rows, utcnow
from app.core.exceptions import UnauthenticatedError
from app.core.keys import KeyKind, looks_like_key
from app.core.tokens import Tokens
from app.models import ReportedUsage, User
from app.schemas.introspection import (
    Introspection,
    IntrospectionForm,
    UsageBooked,
    UsageReport,
)
from app.services.keyring import Grant
from app.services.principal import Principals

_EVERYTHING = "*"
_INSERTS: dict[str, Callable[[Any], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


async def introspect(
    database: Database,
    principals: Principals,
    tokens: Tokens,
    form: IntrospectionForm,
) -> Introspection:
    """What is true of the token now, by the rules that hold for it here."""
    try:
        found = await _credential(principals, tokens, form)
    except UnauthenticatedError:
        return Introspection(active=False)
    profile = select(User.username).where(User.id == found.sub)
    async with database.unit_of_work(read_only=True) as session:
        user = (await session.execute(profile)).one_or_none()
    if user is None:  # erased this moment
        return Introspection(active=False)
    found.username = user.username
    return found


async def _credential(
    principals: Principals, tokens: Tokens, form: IntrospectionForm
) -> Introspection:
    if looks_like_key(form.token):
        key = await principals.keys.get(form.token, KeyKind.USER, ip=form.client_ip)
        return Introspection(
            active=True,
            kind="user",
            sub=key.owner,
            sid=key.id,
            scope=" ".join(sorted(key.scopes)),
            exp=int(key.expires_at.timestamp()) if key.expires_at else None,
        )
    claims = tokens.read_access(form.token)
    principal = await principals.of(claims)
    return Introspection(
        active=True,
        kind="user",
        sub=principal.user_id,
        sid=principal.session_id,
        scope=_EVERYTHING,
        exp=claims.expires_at,
    )


async def report(
    session: AsyncSession, service: Grant, reports: Sequence[UsageReport]
) -> UsageBooked:
    """Book what users used up; a report whose id was booked before counts no more."""
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
    insert = _INSERTS[session.get_bind().dialect.name](ReportedUsage)
    booked = 0
    if rows:
        result = await session.execute(insert.values(rows).on_conflict_do_nothing())
        booked = changed_rows(result)
    return UsageBooked(booked=booked, unknown=sorted(subjects - known))
