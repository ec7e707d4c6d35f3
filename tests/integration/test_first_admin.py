"""Admins made where there is nobody yet to make them."""

import asyncio
import re
from pathlib import Path

import pytest
import typer
from sqlalchemy import select
from typer.testing import CliRunner, Result

from app.cli import cli
from app.cli.admin import create_first
from app.core.config import ConfigError, Settings
from app.core.database import Database
from app.core.passwords import Passwords
from app.models import Admin, AuditEvent
from tests.conftest import SettingsFactory
from tests.integration.things import PERMISSIONS

PASSWORD = "a long pass phrase"
FIRST = {"ADMIN_EMAIL": "Root@example.com", "ADMIN_PASSWORD": PASSWORD}
SECOND = {"ADMIN_EMAIL": "other@example.com", "ADMIN_USERNAME": "other"}


@pytest.fixture
def settings(settings_with: SettingsFactory, database: Database) -> Settings:
    """Of an empty database."""
    assert database
    return settings_with()


def stored(settings: Settings) -> tuple[list[Admin], list[AuditEvent]]:
    async def read() -> tuple[list[Admin], list[AuditEvent]]:
        database = Database(settings)
        async with database.unit_of_work(read_only=True) as session:
            admins = list(await session.scalars(select(Admin)))
            events = list(await session.scalars(select(AuditEvent)))
        await database.close()
        return admins, events

    return asyncio.run(read())


def create_admin(
    settings: Settings,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *more: str,
) -> Result:
    monkeypatch.chdir(folder)
    environ = {
        "SECRET_KEY": settings.security.secret_key.get_secret_value(),
        "DATABASE_URL": settings.database_url,
        "DATA_DIR": str(folder),
        "BCRYPT_ROUNDS": "4",
    }
    names = ("--email", "root@example.com", "--username", "Root")
    return CliRunner().invoke(cli, ["create-admin", *names, *more], env=environ)


def test_the_command_makes_an_admin_and_shows_the_password_once(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = create_admin(settings, tmp_path, monkeypatch)

    assert done.exit_code == 0, done.output
    ((admin,), (event,)) = stored(settings)
    assert (admin.email, admin.username) == ("root@example.com", "root")
    assert admin.permissions == sorted(PERMISSIONS)
    assert (event.actor_kind, event.action) == ("system", "admin.create")
    (password,) = re.findall(r"shown only here: (\S{20,})", done.stdout)
    verify = Passwords(settings.security).verify(password, admin.password_hash)
    assert asyncio.run(verify)


def test_a_password_that_was_given_is_not_printed(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = create_admin(settings, tmp_path, monkeypatch, "--password", PASSWORD)

    assert PASSWORD not in done.output
    ((admin,), _) = stored(settings)
    verify = Passwords(settings.security).verify(PASSWORD, admin.password_hash)
    assert asyncio.run(verify)


@pytest.mark.parametrize(
    ("option", "value", "problem"),
    [
        ("--email", "root", "An email address must have an @-sign."),
        ("--password", "short", ""),
        ("--password", "password1", "This password is among the most common"),
    ],
)
def test_a_wrong_option_is_named(
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    option: str,
    value: str,
    problem: str,
) -> None:
    done = create_admin(settings, tmp_path, monkeypatch, option, value)

    assert done.exit_code in {1, 2}
    assert f"workroom: {option}: {problem}" in done.output
    assert stored(settings) == ([], [])


def test_an_admin_is_not_made_twice(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_admin(settings, tmp_path, monkeypatch)

    again = create_admin(settings, tmp_path, monkeypatch)

    assert again.exit_code == 1
    assert "--email: There is already an account with this address." in again.output


def test_a_start_makes_the_first_admin_and_no_second_one(
    settings: Settings,
    settings_with: SettingsFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    create_first(settings_with(**FIRST))
    create_first(settings_with(**FIRST | SECOND))

    ((admin,), _) = stored(settings)
    assert (admin.email, admin.username) == ("root@example.com", "admin")
    assert capsys.readouterr().out == "workroom: made the first admin, admin\n"


def test_without_the_settings_there_is_no_admin(settings: Settings) -> None:
    """There is no default password."""
    create_first(settings)

    assert stored(settings) == ([], [])


def test_a_weak_first_password_stops_the_start(
    settings: Settings,
    settings_with: SettingsFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(typer.Exit):
        create_first(settings_with(**FIRST | {"ADMIN_PASSWORD": "password1"}))

    assert capsys.readouterr().err.startswith("workroom: ADMIN_PASSWORD: ")
    assert stored(settings) == ([], [])


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
@pytest.mark.parametrize("missing", FIRST)
def test_address_and_password_go_together(
    settings_with: SettingsFactory, missing: str
) -> None:
    with pytest.raises(ConfigError, match=f"{missing}: is not set"):
        settings_with(**{n: v for n, v in FIRST.items() if n != missing})
