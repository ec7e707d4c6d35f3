"""Mail, by a real SMTP server and into files."""

import asyncio
import stat
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiosmtplib import SMTPAuthenticationError
from sqlalchemy import select

from app.core.config import ConfigError
from app.integrations.mail.smtp import SmtpMailer
from app.models import Job
from app.services import job as jobs
from app.services import mail
from tests import mailbox
from tests.conftest import Server, SettingsFactory
from tests.fakes.smtp import FakeSmtp

TO = "ada@example.com"

one_database = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@pytest.fixture
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "retry_delay", lambda _attempt: timedelta(0))


async def notify(server: Server) -> None:
    async with server.runtime.database.unit_of_work() as session:
        await mail.send(session, "email_changed", to=TO, email="new@x.com")


async def job_of(server: Server) -> Job:
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        found = await session.scalars(select(Job).where(Job.name == "mail.send"))
        job: Job = found.one()
    return job


async def failed(server: Server) -> str:
    """Wait until the mail's job has failed for good; gives its error."""
    async with asyncio.timeout(20):
        while (await job_of(server)).state != "dead":  # noqa: ASYNC110 - the database tells
            await asyncio.sleep(0.01)
    return str((await job_of(server)).error)


@pytest.mark.parametrize("security", ["starttls", "tls"])
async def test_mail_goes_encrypted_and_logged_in(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, security: Any
) -> None:
    async with FakeSmtp(tmp_path, security) as smtp:
        monkeypatch.setenv("SSL_CERT_FILE", str(smtp.certificate))
        async with serve(**smtp.variables) as server:
            await notify(server)
            await mailbox.settled(server)

    (message,) = smtp.messages
    assert smtp.encrypted == [True]
    assert message["From"] == "Workroom <no-reply@example.com>"
    assert message["To"] == TO
    assert message["Auto-Submitted"] == "auto-generated"
    assert "new@x.com" in mailbox.text_of(message)
    assert "new@x.com" in mailbox.text_of(message, "html")


@one_database
async def test_a_server_on_this_machine_may_take_mail_in_clear(
    serve: Any, tmp_path: Path
) -> None:
    async with (
        FakeSmtp(tmp_path, "none") as smtp,
        serve(**smtp.variables) as server,
    ):
        await notify(server)
        await mailbox.settled(server)

    assert len(smtp.messages) == 1


@pytest.mark.usefixtures("_at_once")
async def test_what_the_server_defers_is_sent_later_and_once(
    serve: Any, tmp_path: Path
) -> None:
    """F4."""
    refusals = ["451 later", "421 busy", "452 full"]
    async with (
        FakeSmtp(tmp_path, "none", refusals) as smtp,
        serve(**smtp.variables) as server,
    ):
        await notify(server)
        await mailbox.settled(server)

    assert smtp.tries == 4
    assert len(smtp.messages) == 1


@one_database
@pytest.mark.usefixtures("_at_once")
async def test_what_the_server_never_takes_ends_dead_with_its_answer(
    serve: Any, tmp_path: Path
) -> None:
    refusals = ["554 spam"] * mail.MAX_ATTEMPTS
    async with (
        FakeSmtp(tmp_path, "none", refusals) as smtp,
        serve(**smtp.variables) as server,
    ):
        await notify(server)
        error = await failed(server)

    assert "spam" in error
    assert smtp.messages == []


@one_database
@pytest.mark.usefixtures("_at_once")
async def test_a_certificate_of_nobody_we_trust_gets_nothing(
    serve: Any, tmp_path: Path
) -> None:
    async with FakeSmtp(tmp_path) as smtp, serve(**smtp.variables) as server:
        await notify(server)
        error = await failed(server)

    assert "certificate" in error.lower()
    assert smtp.tries == 0
    assert not smtp.tried.is_set()


@one_database
@pytest.mark.usefixtures("_at_once")
async def test_a_server_without_encryption_gets_neither_mail_nor_password(
    serve: Any, tmp_path: Path
) -> None:
    async with FakeSmtp(tmp_path, "none") as smtp:
        demanding = smtp.variables | {"SMTP_SECURITY": "starttls"}
        async with serve(**demanding) as server:
            await notify(server)
            error = await failed(server)

    assert "STARTTLS" in error
    assert not smtp.tried.is_set()


@one_database
@pytest.mark.usefixtures("_at_once")
async def test_a_wrong_smtp_password_is_told_and_not_shown(
    serve: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeSmtp(tmp_path) as smtp:
        monkeypatch.setenv("SSL_CERT_FILE", str(smtp.certificate))
        wrong = smtp.variables | {"SMTP_PASSWORD": "quite wrong"}
        async with serve(**wrong) as server:
            await notify(server)
            error = await failed(server)

    assert "SMTPAuthenticationError" in error
    assert "quite wrong" not in error


@one_database
async def test_a_server_can_be_tried_without_a_mail(
    settings_with: SettingsFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with FakeSmtp(tmp_path) as smtp:
        monkeypatch.setenv("SSL_CERT_FILE", str(smtp.certificate))
        right, wrong = smtp.variables, smtp.variables | {"SMTP_PASSWORD": "wrong"}

        await SmtpMailer(settings_with(**right).mail).check()
        with pytest.raises(SMTPAuthenticationError):
            await SmtpMailer(settings_with(**wrong).mail).check()

    assert smtp.tries == 0


@one_database
async def test_without_a_server_mail_is_a_file_that_only_we_may_read(
    server: Server,
) -> None:
    await notify(server)
    (message,) = await mailbox.mails(server)

    folder = server.runtime.settings.server.data_dir / "mail"
    (path,) = folder.iterdir()
    assert message["To"] == TO
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


async def test_mail_of_a_transaction_that_fails_is_never_sent(server: Server) -> None:
    async def fail() -> None:
        async with server.runtime.database.unit_of_work() as session:
            await mail.send(session, "email_changed", to=TO, email="new@x.com")
            raise LookupError

    with pytest.raises(LookupError):
        await fail()

    assert await mailbox.mails(server) == []


@one_database
async def test_a_value_that_a_template_needs_is_missed_where_it_is_asked_for(
    server: Server,
) -> None:
    async with server.runtime.database.unit_of_work() as session:
        with pytest.raises(KeyError, match="email"):
            await mail.send(session, "email_changed", to=TO)


def compose(settings: Any, **values: str) -> Any:
    return mailbox.read(
        bytes(
            mail.compose(
                settings, "email_changed", to=TO, message_id="1", values=values
            )
        )
    )


@one_database
def test_values_are_no_markup(settings_with: SettingsFactory) -> None:
    """TRUST D2: stored text is never rendered as markup."""
    settings = settings_with(APP_NAME="<b>Room</b>")
    message = compose(settings, email="<script>alert(1)</script>")

    html = mailbox.text_of(message, "html")
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "<b>" not in html


@one_database
def test_a_link_stands_in_the_file_as_it_is(settings_with: SettingsFactory) -> None:
    """A person may copy it from there: no encoding may break its line."""
    link = f"http://x/#token={'a' * 90}"
    raw = bytes(
        mail.compose(
            settings_with(), "invited", to=TO, message_id="1",
            values={"link": link, "hours": 1},
        )
    )  # fmt: skip

    assert link.encode() in raw


@one_database
@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"SMTP_HOST": "x"}, "MAIL_FROM"),
        ({"MAIL_FROM": "nobody"}, "MAIL_FROM"),
        ({"MAIL_FROM": "a@x.com, b@x.com"}, "MAIL_FROM"),
        ({"SMTP_USERNAME": "x"}, "SMTP_PASSWORD"),
        (
            {"SMTP_USERNAME": "x", "SMTP_PASSWORD": "y", "SMTP_SECURITY": "none"},
            "SMTP_SECURITY",
        ),
    ],
)
def test_settings_that_cannot_work_are_named(
    settings_with: Callable[..., Any], variables: dict[str, str], named: str
) -> None:
    with pytest.raises(ConfigError, match=f"^{named}: "):
        settings_with(**variables)


@one_database
@pytest.mark.parametrize(
    ("variables", "required"),
    [
        ({}, False),
        ({"SMTP_HOST": "x"}, False),
        ({"ENVIRONMENT": "production"}, False),
        ({"ENVIRONMENT": "production", "SMTP_HOST": "x"}, True),
        (
            {
                "ENVIRONMENT": "production",
                "SMTP_HOST": "x",
                "EMAIL_VERIFICATION": "optional",
            },
            False,
        ),
        ({"EMAIL_VERIFICATION": "required"}, True),
    ],
)
def test_verification_is_required_where_strangers_come_and_mail_works(
    settings_with: SettingsFactory, variables: dict[str, str], *, required: bool
) -> None:
    strict = {
        "SECRET_KEY": "k3jH8sKq0vZ1xN7bT5yW2mR9cF4dG6pL",
        "ENCRYPTION_KEY": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "ALLOWED_HOSTS": "workroom.example.com",
        "MAIL_FROM": "no-reply@example.com",
    }

    assert settings_with(**strict, **variables).verification_required is required
