"""Users, as the desk looks after them: found, made, suspended, let in again."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    ColumnElement,
    Select,
    SQLColumnExpression,
    collate,
    select,
    union,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.core.exceptions import ConflictError, NotFoundError
from app.core.passwords import NO_PASSWORD, Passwords
from app.models import User
from app.schemas.desk import UserCreateByAdmin, UserStatus
from app.services import audit
from app.services.account.accounts import Accounts
from app.services.audit import Actor
from app.services.auth import refuse_taken, refuse_weak, taken
from app.services.link import links
from app.services.link.accounts import invite
from app.services.lockout import Lockout
from app.services.mfa import Mfa
from app.services.paging import Paging, after, page

_CANDIDATES = 1000
"""A search looks at so many of each kind of match: its cost stays bounded."""
_LAST = "\U0010ffff"  # no text goes on with anything greater
_COLLATIONS = {"sqlite": "BINARY", "postgresql": "C"}
"""By which texts that begin alike stand together; an index has the same."""


async def listing(
    session: AsyncSession,
    at: Paging,
    *,
    query: str | None,
    status: UserStatus | None,
) -> tuple[Sequence[User], str | None]:
    """A page of users, the newest first, and the cursor of the next one."""
    statement = select(User)
    if query is None:
        statement = statement.where(_of_status(User.status, status))
    else:
        keys = _matches(session, query.lower(), status, at)
        statement = statement.where(User.id.in_(keys))
    return await page(session, statement, User, at)


async def get(session: AsyncSession, user_id: UUID, *, lock: bool = False) -> User:
    """Raises NotFoundError also for a deleted one."""
    statement = select(User).where(User.id == user_id, User.status != "deleted")
    if lock:
        statement = statement.with_for_update()
    user = await session.scalar(statement)
    if user is None:
        raise NotFoundError("There is no user with this id.")
    return user


async def create(
    session: AsyncSession,
    passwords: Passwords,
    actor: Actor,
    form: UserCreateByAdmin,
) -> User:
    """Make an account for somebody; without a password they choose one by mail.

    Raises ValidationFailedError for a weak password, ConflictError if taken.
    """
    password_hash = NO_PASSWORD
    if form.password is not None:
        names = (form.email, form.username, form.full_name)
        refuse_weak(form.password, "password", *names)
        password_hash = await passwords.hash(form.password)
    await refuse_taken(session, email=form.email, username=form.username)
    fields = form.model_dump(exclude={"password"})
    user = User(**fields, password_hash=password_hash)
    session.add(user)
    try:
        await session.flush()
    except IntegrityError as error:  # a twin was made at the same moment
        raise taken("email" if "email" in str(error.orig) else "username") from error
    await welcome(session, actor, user)
    return user


async def welcome(
    session: AsyncSession,
    actor: Actor,
    user: User,
    *,
    invite_at: datetime | None = None,
) -> None:
    """Have the audit know of an account that was made, and its owner by mail."""
    if user.password_hash == NO_PASSWORD:
        await invite(session, user, run_at=invite_at)
    await audit.record(
        session,
        actor,
        "user.create",
        target=("user", user.id),
        after={"email": user.email, "username": user.username},
    )


async def resend(session: AsyncSession, actor: Actor, user_id: UUID) -> User:
    """Mail the invitation again, or the link that verifies the user's address.

    Nothing is mailed where neither is wanting, or where there was enough mail already.
    """
    user = await get(session, user_id)
    if user.password_hash == NO_PASSWORD:
        await invite(session, user)
    else:
        links.ask(session, "verify", user.email, user_id=user.id)
    await audit.record(session, actor, "mail.resend", target=("user", user.id))
    return user


async def suspend(
    session: AsyncSession, accounts: Accounts, actor: Actor, user_id: UUID
) -> User:
    """Let the user in no more: sessions, streams and running replies end at once."""
    user = await get(session, user_id, lock=True)
    await _change_status(session, actor, user, "suspended", from_=("active",))
    await accounts.end_all(session, user.id)
    return user


async def activate(session: AsyncSession, actor: Actor, user_id: UUID) -> User:
    """Let a suspended or archived user log in again; what ended stays ended."""
    user = await get(session, user_id, lock=True)
    await _change_status(
        session, actor, user, "active", from_=("suspended", "archived")
    )
    return user


async def unlock(
    session: AsyncSession, lockout: Lockout, actor: Actor, user_id: UUID
) -> User:
    """Let a user log in at once who failed too often."""
    user = await get(session, user_id)
    await lockout.clear(session, user.id)
    await audit.record(session, actor, "user.unlock", target=("user", user.id))
    return user


async def remove_second_factor(
    session: AsyncSession, mfa: Mfa, actor: Actor, user_id: UUID
) -> None:
    """For a user who has lost both the device and the recovery codes."""
    await mfa.take_away(session, actor, "user", await get(session, user_id))


async def _change_status(
    session: AsyncSession,
    actor: Actor,
    user: User,
    status: UserStatus,
    *,
    from_: tuple[UserStatus, ...],
) -> None:
    before = user.status
    if before not in from_:
        raise ConflictError(f"This account is {before}.", code="wrong_status")
    user.status = status
    await session.flush()
    await audit.record(
        session,
        actor,
        "user.suspend" if status == "suspended" else "user.activate",
        target=("user", user.id),
        before={"status": before},
        after={"status": status},
    )


def _of_status(
    column: SQLColumnExpression[str], status: UserStatus | None
) -> ColumnElement[bool]:
    return column != "deleted" if status is None else column == status


def _matches(
    session: AsyncSession, beginning: str, status: UserStatus | None, at: Paging
) -> Select[Any]:
    """The keys, up to this page's, of whose address or name begins so.

    They are found along two indexes, and ordered and cut here: where `users` itself
    had to give the order, PostgreSQL would look through all of it.
    """
    collation = _COLLATIONS[session.get_bind().dialect.name]

    def begins(column: InstrumentedAttribute[Any]) -> Select[Any]:
        text = collate(column, collation)
        found = (
            select(User.id, User.status)
            .where(text >= beginning, text < beginning + _LAST)
            .order_by(text)
            .limit(_CANDIDATES)
        )
        return select(found.subquery())

    both = union(begins(User.email), begins(User.username)).subquery().c
    return (
        select(both.id)
        .where(_of_status(both.status, status), after(both.id, at))
        .order_by(both.id.desc())
        .limit(at.offset + at.limit + 1)
    )
