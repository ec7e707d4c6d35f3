"""Mail to people: asked for in a transaction, written and sent by a job after it.

A template is two files, `app/templates/mail/<name>.txt` and `.html`: the first line of
the text is the subject, the other file is what the layout's frame holds. `$name` is a
value; `$app_name` and `$url`, the address of this installation, are always there.
"""

import html
from collections.abc import Mapping
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from functools import cache
from pathlib import Path
from string import Template
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.config import Settings
from app.core.config.mail import sender
from app.core.database import utcnow
from app.services import job as jobs

MAX_ATTEMPTS = 8
"""Over about two hours: servers that defer strangers ask for less."""

_TEMPLATES = Path(__file__).resolve().parents[1] / "templates" / "mail"
_ALWAYS = {"app_name", "url"}


async def send(
    session: AsyncSession,
    template: str,
    *,
    to: str,
    user_id: UUID | None = None,
    **values: str | float,
) -> None:
    """Mail `template` to the address once this transaction is stored.

    `values` lie in the jobs table for days: no secret may be among them (`app.services.
    link` mails links). `user_id` tells whose row that is. Raises KeyError where the
    template asks for a value that is not given.
    """
    missing = _asked_for(template) - values.keys() - _ALWAYS
    if missing:
        raise KeyError(f"{template} also needs {', '.join(sorted(missing))}")
    jobs.enqueue(
        session,
        "mail.send",
        max_attempts=MAX_ATTEMPTS,
        template=template,
        to=to,
        user_id=user_id and str(user_id),
        message_id=str(uuid7()),
        values=values,
    )


def compose(
    settings: Settings,
    template: str,
    *,
    to: str,
    message_id: str,
    values: Mapping[str, str | float],
) -> EmailMessage:
    """The message, as text and as HTML, in which every value is escaped."""
    named = {
        **values,
        "app_name": settings.server.app_name,
        "url": settings.server.url,
    }
    subject, _, text = _read(f"{template}.txt").substitute(named).partition("\n")
    escaped = {name: html.escape(str(value)) for name, value in named.items()}
    body = _read(f"{template}.html").substitute(escaped)
    page = _read("_layout.html").substitute(escaped, body=body)
    mail_from = (
        sender(settings.mail.mail_from)
        if settings.mail.mail_from
        else Address(settings.server.app_name, addr_spec="no-reply@localhost")
    )
    message = EmailMessage()
    message["From"] = mail_from
    message["To"] = Address(addr_spec=to)
    message["Subject"] = " ".join(subject.split())  # a value may have held a newline
    message["Date"] = format_datetime(utcnow())
    message["Message-ID"] = f"<{message_id}@{mail_from.domain}>"
    message["Auto-Submitted"] = "auto-generated"  # RFC 3834: no out-of-office answers
    text = text.lstrip("\n")
    message.set_content(text, cte=_encoding(text))
    message.add_alternative(page, subtype="html", cte=_encoding(page))
    return message


def _encoding(text: str) -> str | None:
    """As it is where it may be: in a file, a link in quoted-printable is none."""
    return "7bit" if text.isascii() else None


@cache
def _read(name: str) -> Template:
    return Template((_TEMPLATES / name).read_text(encoding="utf-8"))


@cache
def _asked_for(template: str) -> set[str]:
    return {
        name
        for kind in ("txt", "html")
        for name in _read(f"{template}.{kind}").get_identifiers()
    }
