"""Admins made where there is nobody yet to make them."""

import asyncio
import secrets
from typing import get_args

from pydantic import ValidationError
from sqlalchemy import select

from app.cli.preparing import make_folder, migrate, write_first_env
from app.cli.terminal import fail, load_settings_or_exit, say
from app.core.config import Settings
from app.core.database import Database
from app.core.exceptions import AppError
from app.core.passwords import Passwords
from app.models import Admin
from app.schemas.desk import AdminCreate, Permission
from app.services.audit import SYSTEM
from app.services.desk import accounts

_NAMES = {"email": "--email", "username": "--username", "password": "--password"}
_VARIABLES = {
    "email": "ADMIN_EMAIL",
    "username": "ADMIN_USERNAME",
    "password": "ADMIN_PASSWORD",
}


def create(*, email: str, username: str, password: str | None) -> None:
    """Make an admin who may do everything.

    Without a password one is made and told: nobody gets to see it again.
    """
    write_first_env()
    settings = load_settings_or_exit()
    form = _form(email, username, password or secrets.token_urlsafe(15), _NAMES)
    make_folder(settings.server.data_dir, "DATA_DIR")
    migrate(settings)
    asyncio.run(_create(settings, form, _NAMES))
    say(f"made the admin {form.username}")
    if password is None:
        say(f"the password, shown only here: {form.password}")


def create_first(settings: Settings) -> None:
    """Make the admin whom the settings name, unless there is one."""
    desk = settings.desk
    if desk.admin_email is None or desk.admin_password is None:
        return
    password = desk.admin_password.get_secret_value()
    form = _form(desk.admin_email, desk.admin_username, password, _VARIABLES)
    if asyncio.run(_create(settings, form, _VARIABLES, only_first=True)):
        say(f"made the first admin, {form.username}")


def _form(
    email: str, username: str, password: str, names: dict[str, str]
) -> AdminCreate:
    try:
        return AdminCreate(
            email=email,
            username=username,
            password=password,
            permissions=frozenset(get_args(Permission)),
        )
    except ValidationError as error:
        problems = (
            f"{names[str(e['loc'][0])]}: {e['msg'].removeprefix('Value error, ')}"
            for e in error.errors()
        )
        fail("\n".join(problems), code=2)


async def _create(
    settings: Settings,
    form: AdminCreate,
    names: dict[str, str],
    *,
    only_first: bool = False,
) -> bool:
    database = Database(settings)
    try:
        async with database.unit_of_work() as session:
            if only_first and await session.scalar(select(Admin.id).limit(1)):
                return False
            passwords = Passwords(settings.security)
            await accounts.create(session, passwords, SYSTEM, form)
            return True
    except AppError as error:
        named = "".join(f"{names[e['path']]}: " for e in error.errors[:1])
        fail(f"{named}{error.detail}")
    finally:
        await database.close()
