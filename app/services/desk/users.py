"""Users, as the desk looks after them: found, made, suspended, let in again."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Select, collate, select, union_all
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
from app.services.paging import Paging, page

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
    statement = select(User).where(
        User.status != "deleted" if status is None else User.status == status
    )
    if query is not None:
        statement = statement.where(User.id.in_(_matches(session, query.lower())))
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


async def welcome(session: AsyncSession, actor: Actor, user: User) -> None:
    """Have the owner of an account that was made for them know, and the audit."""
    await audit.record(
        session,
        actor,
        "user.create",
        target=("user", user.id),
        after={"email": user.email, "username": user.username},
    )


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


def _matches(session: AsyncSession, beginning: str) -> Select[Any]:
    """The ids of those whose address or name begins so, along two indexes."""
    collation = _COLLATIONS[session.get_bind().dialect.name]

    def begins(column: InstrumentedAttribute[Any]) -> Select[Any]:
        text = collate(column, collation)
        inside = (
            select(User.id)
            .where(text >= beginning, text < beginning + _LAST)
            .order_by(text)
            .limit(_CANDIDATES)
        )
        return select(inside.subquery().c.id)

    both = union_all(begins(User.email), begins(User.username)).subquery()
    return select(both.c.id)
