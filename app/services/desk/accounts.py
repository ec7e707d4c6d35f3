"""Accounts of the desk: who makes and changes whom.

Nobody gives what they do not have, nor touches who has more than they: an admin may
give their own permissions, and change admins who hold no others. Support staff makes
no accounts at all.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import ForbiddenError, NotFoundError
from app.core.passwords import Passwords
from app.models import Admin, DeskAccount, SupportStaff
from app.schemas.desk import (
    AdminCreate,
    AdminUpdate,
    DeskAccountCreate,
    DeskAccountUpdate,
    StaffCreate,
    StaffUpdate,
)
from app.services import audit
from app.services.audit import Actor
from app.services.auth import refuse_weak, taken
from app.services.desk.auth import DeskAuth
from app.services.desk.principal import DeskUser, kind_of, model_of
from app.services.mfa import Mfa
from app.services.paging import Paging, page

A = TypeVar("A", bound=DeskAccount)

_RIGHTS = {"status", "level", "permissions"}
"""What ends an account's sessions when it changes."""


async def create(
    session: AsyncSession,
    passwords: Passwords,
    actor: Actor,
    form: AdminCreate | StaffCreate,
) -> DeskAccount:
    """Raises ValidationFailedError for a weak password, ConflictError if taken."""
    refuse_weak(form.password, "password", form.email, form.username, form.full_name)
    password_hash = await passwords.hash(form.password)
    fields = _fields(form) | {"password_hash": password_hash}
    model = Admin if isinstance(form, AdminCreate) else SupportStaff
    account: DeskAccount = model(**fields)
    await _refuse_taken(session, account)
    session.add(account)
    try:
        await session.flush()
    except IntegrityError as error:  # a twin was made at the same moment
        raise taken("email" if "email" in str(error.orig) else "username") from error
    kind = kind_of(model)
    await audit.record(
        session,
        actor,
        f"{kind}.create",
        target=(kind, account.id),
        after=_shown(account),
    )
    return account


async def create_by(
    session: AsyncSession,
    passwords: Passwords,
    admin: DeskUser,
    form: AdminCreate | StaffCreate,
    *,
    ip: str | None,
) -> DeskAccount:
    """The same by an admin, who gives no permission that they do not have."""
    if isinstance(form, AdminCreate):
        _refuse_beyond(admin, form.permissions)
    return await create(session, passwords, admin.actor(ip), form)


async def listing(
    session: AsyncSession, model: type[A], at: Paging
) -> tuple[Sequence[A], str | None]:
    """A page of accounts, the newest first, and the cursor of the next one."""
    return await page(session, select(model), model, at)


async def get(session: AsyncSession, model: type[A], account_id: UUID) -> A:
    account = await session.get(model, account_id)
    if account is None:
        raise NotFoundError("There is no account of the desk with this id.")
    return account


async def myself(session: AsyncSession, desk_user: DeskUser) -> DeskAccount:
    return await session.get_one(model_of(desk_user.kind), desk_user.id)


async def change(
    session: AsyncSession,
    desk: DeskAuth,
    admin: DeskUser,
    account_id: UUID,
    *,
    form: AdminUpdate | StaffUpdate,
    passwords: Passwords,
    ip: str | None,
) -> DeskAccount:
    """Other rights, another status or password count at once: sessions end."""
    changes = _fields(form)
    if form.password is not None:  # before the first statement, as it takes its time
        changes["password_hash"] = await passwords.hash(form.password)
    model = Admin if isinstance(form, AdminUpdate) else SupportStaff
    account: DeskAccount = await get(session, model, account_id)
    _refuse_unequal(admin, account)
    _refuse_beyond(admin, changes.get("permissions", ()))
    if form.password is not None:
        names = (account.email, account.username, account.full_name)
        refuse_weak(form.password, "password", *names)
    before = _shown(account)
    for field, value in changes.items():
        setattr(account, field, value)
    await session.flush()
    kind = kind_of(model)
    if changes.keys() & {*_RIGHTS, "password_hash"}:
        await desk.end_sessions(session, kind, account.id)
    told = {"password": "changed"} if "password_hash" in changes else {}
    await audit.record(
        session,
        admin.actor(ip),
        f"{kind}.change",
        target=(kind, account.id),
        before={name: before[name] for name in changes if name in before},
        after={name: _shown(account)[name] for name in changes if name in before}
        | told,
    )
    return account


async def remove_second_factor(
    session: AsyncSession,
    mfa: Mfa,
    admin: DeskUser,
    model: type[DeskAccount],
    account_id: UUID,
    *,
    ip: str | None,
) -> None:
    """For one who has lost both the device and the recovery codes."""
    account = await get(session, model, account_id)
    _refuse_unequal(admin, account)
    await mfa.take_away(session, admin.actor(ip), kind_of(model), account)


async def delete(
    session: AsyncSession,
    desk: DeskAuth,
    admin: DeskUser,
    model: type[DeskAccount],
    account_id: UUID,
    *,
    ip: str | None,
) -> None:
    account = await get(session, model, account_id)
    _refuse_unequal(admin, account)
    kind = kind_of(model)
    await desk.end_sessions(session, kind, account.id)
    await session.delete(account)
    await audit.record(
        session,
        admin.actor(ip),
        f"{kind}.delete",
        target=(kind, account.id),
        before=_shown(account),
    )


def _fields(form: DeskAccountCreate | DeskAccountUpdate) -> dict[str, Any]:
    """What was sent, as it is stored; what cannot be null stays as it is."""
    fields = form.model_dump(exclude_unset=True, exclude={"password"})
    if fields.get("permissions") is not None:
        fields["permissions"] = sorted(fields["permissions"])
    return {n: v for n, v in fields.items() if v is not None or n not in _RIGHTS}


def _shown(account: DeskAccount) -> dict[str, Any]:
    """What the audit tells of an account."""
    names = ("email", "username", "full_name", "status", "permissions", "level")
    return {name: getattr(account, name) for name in names if hasattr(account, name)}


def _refuse_unequal(admin: DeskUser, account: DeskAccount) -> None:
    if account.id == admin.id:  # so an installation never loses its last admin
        raise ForbiddenError(
            "Have another admin change or delete your account.", code="own_account"
        )
    if isinstance(account, Admin):
        _refuse_beyond(admin, account.permissions)


def _refuse_beyond(admin: DeskUser, permissions: Iterable[str]) -> None:
    if beyond := sorted(set(permissions) - admin.permissions):
        raise ForbiddenError(
            f"You do not have these permissions yourself: {', '.join(beyond)}.",
            code="permission_required",
        )


async def _refuse_taken(session: AsyncSession, account: DeskAccount) -> None:
    model = type(account)
    same = or_(model.email == account.email, model.username == account.username)
    for other in await session.scalars(select(model).where(same)):
        raise taken("email" if other.email == account.email else "username")
