"""Accounts of the desk: who makes and changes whom.

Nobody gives what they do not have, nor touches who has more than they: an admin may
give their own permissions, and change admins who hold no others. Support staff makes
no accounts at all.
"""

from typing import Any

from sqlalchemy import or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.exceptions import ConflictError, FieldError, ValidationFailedError
from app.core.passwords import Passwords, weakness
from app.models import Admin, DeskAccount, SupportStaff
from app.schemas.desk import AdminCreate, StaffCreate
from app.services import audit
from app.services.audit import Actor
from app.services.desk.principal import DeskUser, model_of


async def create(
    session: AsyncSession,
    passwords: Passwords,
    actor: Actor,
    form: AdminCreate | StaffCreate,
) -> DeskAccount:
    """Raises ValidationFailedError for a weak password, ConflictError if taken."""
    reason = weakness(form.password, form.email, form.username, form.full_name)
    if reason is not None:
        raise ValidationFailedError(
            reason, errors=[FieldError(path="password", message=reason)]
        )
    password_hash = await passwords.hash(form.password)
    fields = form.model_dump(exclude={"password"}) | {"password_hash": password_hash}
    account: DeskAccount
    if isinstance(form, AdminCreate):
        account = Admin(**fields | {"permissions": sorted(form.permissions)})
    else:
        account = SupportStaff(**fields)
    await _refuse_taken(session, account)
    session.add(account)
    try:
        await session.flush()
    except IntegrityError as error:  # a twin was made at the same moment
        raise _taken("email" if "email" in str(error.orig) else "username") from error
    await audit.record(
        session,
        actor,
        f"{kind_of(account)}.create",
        target=(kind_of(account), account.id),
        after=shown(account),
    )
    return account


async def myself(session: AsyncSession, desk_user: DeskUser) -> DeskAccount:
    return await session.get_one(model_of(desk_user.kind), desk_user.id)


def kind_of(account: DeskAccount) -> str:
    return "admin" if isinstance(account, Admin) else "staff"


def shown(account: DeskAccount) -> dict[str, Any]:
    """What the audit tells of an account."""
    names = ("email", "username", "full_name", "status", "permissions", "level")
    return {name: getattr(account, name) for name in names if hasattr(account, name)}


async def _refuse_taken(session: AsyncSession, account: DeskAccount) -> None:
    model = type(account)
    same = or_(model.email == account.email, model.username == account.username)
    for other in await session.scalars(select(model).where(same)):
        raise _taken("email" if other.email == account.email else "username")


def _taken(field: str) -> ConflictError:
    what = "address" if field == "email" else "name"
    return ConflictError(
        f"There is already an account with this {what}.",
        code=f"{field}_taken",
        errors=[FieldError(path=field, message="is taken")],
    )
