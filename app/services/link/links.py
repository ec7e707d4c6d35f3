"""The links themselves: asked for, mailed, taken.

Asking is one INSERT whether or not anybody has the address, so nothing tells the two
apart. The job that follows looks who has it, whether they have had enough mail already,
and makes the token: a token is in the mail and nowhere else, only its hash is stored.
"""

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from email.message import EmailMessage
from typing import Literal, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.config import Settings
from app.core.database import Database, utcnow
from app.core.exceptions import FieldError, ValidationFailedError
from app.core.tokens import fingerprint
from app.models import MailLink, User
from app.services import job as jobs
from app.services import mail

Purpose = Literal["register", "verify", "change", "reset", "invite"]

_TOKEN_BYTES = 32
_LIVES: dict[str, timedelta] = {
    "register": timedelta(hours=24),
    "verify": timedelta(hours=24),
    "change": timedelta(hours=24),
    "reset": timedelta(hours=2),
    "invite": timedelta(days=7),
}
_TEMPLATES = {
    "verify": "verify_email",
    "change": "change_email",
    "reset": "reset_password",
    "invite": "invited",
}
_PAGES = {"reset": "reset-password", "invite": "reset-password"}
_KEEP = timedelta(days=1)
"""At least for as long as the mails of an account are counted."""


class Cap(NamedTuple):
    """At most `amount` mails of these purposes to an account within `period`."""

    purposes: tuple[str, ...]
    amount: int
    period: timedelta


_CAPS = (
    Cap(("reset",), 5, timedelta(days=1)),
    Cap(("register", "verify", "change"), 3, timedelta(hours=6)),
)


class Written(NamedTuple):
    message: EmailMessage
    link: str


class InvalidLinkError(ValidationFailedError):
    """One error for all: unknown, used, expired, of another purpose or address."""

    code = "invalid_link"

    def __init__(self) -> None:
        super().__init__(
            "This link does not work: it was used, or has expired. Ask for another.",
            errors=[FieldError(path="token", message="is no link that works")],
        )


def ask(
    session: AsyncSession,
    purpose: Purpose,
    email: str,
    *,
    ip: str | None = None,
    user_id: UUID | None = None,
    run_at: datetime | None = None,
    **sign_up: str | None,
) -> None:
    """Have a link mailed to the address once this transaction is stored, or later.

    `sign_up` is what a `register` link makes an account of.
    """
    link = MailLink(
        id=uuid7(),
        purpose=purpose,
        email=email,
        user_id=user_id,
        ip=ip,
        expires_at=utcnow() + _LIVES[purpose],
        **sign_up,
    )
    session.add(link)
    jobs.enqueue(
        session,
        "link.mail",
        run_at=run_at,
        max_attempts=mail.MAX_ATTEMPTS,
        link_id=str(link.id),
    )


async def write(
    session: AsyncSession, settings: Settings, link_id: UUID
) -> Written | None:
    """The mail for a link, with a fresh token; None where there is nothing to send.

    Each try of the job makes another token, and the one before is void.
    """
    link = await session.get(MailLink, link_id)
    if link is None or link.used_at is not None:
        return None
    owner = User.id == link.user_id if link.user_id else User.email == link.email
    user = await session.scalar(select(User).where(owner))
    others = await _lock(session, link, user)
    template = await _template(session, link, user)
    if template is None or _has_had_enough(link, others):
        await session.delete(link)
        return None
    token = secrets.token_urlsafe(_TOKEN_BYTES)
    life = _LIVES[link.purpose]
    link.token_hash, link.expires_at = fingerprint(token), utcnow() + life
    # What follows the # stays in the browser: no log or proxy gets to see it.
    page = _PAGES.get(link.purpose, "verify-email")
    address = f"{settings.server.url}/{page}#token={token}"
    message = mail.compose(
        settings,
        template,
        to=link.email,
        message_id=str(link.id),
        values={
            "link": address,
            "hours": int(life.total_seconds() // 3600),
            **mail.circumstances(link.created_at, link.ip),
        },
    )
    return Written(message, address)


async def find(session: AsyncSession, token: str, *purposes: Purpose) -> MailLink:
    """The token's link, for who must know more before it is taken; the same errors."""
    link = await session.scalar(select(MailLink).where(*_works(token, purposes)))
    if link is None:
        raise InvalidLinkError
    return link


async def take(session: AsyncSession, token: str, *purposes: Purpose) -> MailLink:
    """Use the token's link up, in this transaction; raises InvalidLinkError.

    Whoever takes one then ends the others: what they were asked for is done, or has
    been asked for by somebody who did not have the address.
    """
    link: MailLink | None = await session.scalar(
        update(MailLink)
        .where(*_works(token, purposes))
        .values(used_at=utcnow())
        .returning(MailLink)
    )
    if link is None:
        raise InvalidLinkError
    return link


def _works(token: str, purposes: Sequence[Purpose]) -> list[ColumnElement[bool]]:
    return [
        MailLink.token_hash == fingerprint(token),
        MailLink.purpose.in_(purposes),
        MailLink.used_at.is_(None),
        MailLink.expires_at > utcnow(),
    ]


async def end(session: AsyncSession, user: User) -> None:
    """Make all links of the account and its address void, sign-ups too."""
    await session.execute(
        update(MailLink)
        .where(or_(MailLink.email == user.email, MailLink.user_id == user.id))
        .values(used_at=utcnow(), username=None, full_name=None, password_hash=None)
        .execution_options(synchronize_session=False)
    )


async def end_access(session: AsyncSession, user_id: UUID) -> None:
    """Make void what would let in whoever asked for it before a password changed."""
    await session.execute(
        update(MailLink)
        .where(MailLink.user_id == user_id, MailLink.purpose.in_(("change", "reset")))
        .values(used_at=utcnow())
        .execution_options(synchronize_session=False)
    )


async def purge(database: Database) -> None:
    now = utcnow()
    await database.delete_in_chunks(
        MailLink, MailLink.expires_at < now, MailLink.created_at < now - _KEEP
    )


async def _lock(
    session: AsyncSession, link: MailLink, user: User | None
) -> Sequence[MailLink]:
    """The other links of the same person, who is not counted twice at one moment."""
    whose = MailLink.email == link.email
    if user is not None:
        whose = or_(whose, MailLink.user_id == user.id)
    rows = await session.scalars(
        select(MailLink)
        .where(whose, MailLink.created_at > utcnow() - _KEEP)
        .order_by(MailLink.id)
        .with_for_update()
        .execution_options(populate_existing=True)
    )
    return [row for row in rows if row is not link]


def _has_had_enough(link: MailLink, others: Sequence[MailLink]) -> bool:
    now = utcnow()
    for cap in _CAPS:
        if link.purpose in cap.purposes:
            mailed = sum(
                other.token_hash is not None
                and other.purpose in cap.purposes
                and other.created_at > now - cap.period
                for other in others
            )
            return mailed >= cap.amount
    return False


async def _template(
    session: AsyncSession, link: MailLink, user: User | None
) -> str | None:
    """What the mail says; None where there is none to send. Sets the link's owner."""
    if user is None:
        return await _template_of_sign_up(session, link)
    if user.status != "active":
        return None
    link.user_id = user.id
    if link.purpose == "register":
        # Who signs up with somebody's address changes nothing there, and learns
        # nothing; the owner hears of it, and may have forgotten that account.
        link.purpose = "reset"
        link.username = link.full_name = link.password_hash = None
        return "account_exists"
    taken = select(User.id).where(User.email == link.email, User.id != user.id)
    needless = (link.purpose == "verify" and user.email_verified_at) or (
        link.purpose == "change" and await session.scalar(taken)
    )
    return None if needless else _TEMPLATES[link.purpose]


async def _template_of_sign_up(session: AsyncSession, link: MailLink) -> str | None:
    """The same for an address without an account."""
    if link.purpose == "verify":
        signed_up = await session.scalar(
            select(MailLink)
            .where(
                MailLink.email == link.email,
                MailLink.purpose == "register",
                MailLink.used_at.is_(None),
                MailLink.expires_at > utcnow(),
            )
            .order_by(MailLink.id.desc())
            .limit(1)
        )
        if signed_up is not None:
            for name in ("purpose", "ip", "username", "full_name", "password_hash"):
                setattr(link, name, getattr(signed_up, name))
    return "verify_email" if link.purpose == "register" else None
