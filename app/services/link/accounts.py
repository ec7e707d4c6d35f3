"""What mailed links do to accounts: begin, verify, move, and reset them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Settings
from app.core.database import release, utcnow
from app.core.exceptions import FieldError, ValidationFailedError
from app.core.passwords import NO_PASSWORD, Passwords
from app.models import MailLink, User
from app.schemas.link import Confirmation, PasswordReset
from app.schemas.user import UserCreate
from app.services import audit, mail
from app.services.audit import Actor
from app.services.auth import Auth, Client, refuse_taken_username, refuse_weak
from app.services.authorization import Principal
from app.services.link import links
from app.services.link.links import InvalidLinkError, Purpose
from app.services.login import Logins

_CONFIRMED: tuple[Purpose, ...] = ("register", "verify", "change")
_ACTIONS = {
    "register": "register",
    "verify": "verify_email",
    "change": "change_email",
}


class PasswordNeededError(ValidationFailedError):
    code = "password_needed"

    def __init__(self) -> None:
        super().__init__(
            "Send the password that was chosen with this address: it shows that you "
            "signed up, and not somebody else.",
            errors=[FieldError(path="password", message="is not that of the sign-up")],
        )


class Accounts:
    def __init__(
        self, settings: Settings, *, passwords: Passwords, auth: Auth, logins: Logins
    ) -> None:
        self._logins = logins
        self._required = settings.verification_required
        self._passwords = passwords
        self._auth = auth

    async def register(
        self, session: AsyncSession, form: UserCreate, client: Client
    ) -> User | None:
        """The account; None where it begins with the link that is mailed.

        In that case nothing here depends on whether the address has an account.
        """
        if not self._required:
            user = await self._auth.register(session, form)
            links.ask(session, "verify", user.email, ip=client.ip, user_id=user.id)
            await _record(session, user, "user.register", client)
            return user
        password_hash = await self._auth.first_hash(form)
        if form.username is not None:
            await refuse_taken_username(session, form.username)
        links.ask(
            session,
            "register",
            form.email,
            ip=client.ip,
            username=form.username,
            full_name=form.full_name,
            password_hash=password_hash,
        )
        return None

    async def resend(self, session: AsyncSession, email: str, client: Client) -> None:
        links.ask(session, "verify", email, ip=client.ip)

    async def forgot(self, session: AsyncSession, email: str, client: Client) -> None:
        links.ask(session, "reset", email, ip=client.ip)

    async def change_email(
        self, session: AsyncSession, principal: Principal, email: str, client: Client
    ) -> None:
        links.ask(session, "change", email, ip=client.ip, user_id=principal.user_id)

    async def verify(
        self,
        session: AsyncSession,
        form: Confirmation,
        client: Client,
        *,
        logged_in: UUID | None,
    ) -> User:
        """Do what the mail asked to confirm; raises InvalidLinkError.

        The link proves the address alone. It must have been asked for by who confirms
        it, or a stranger's password would come with the address: that shows the network
        address that both come from, a session (`logged_in` is whose it is), or the
        password. Else PasswordNeededError, which leaves the link as it was.
        """
        await self._require_asked(session, form, client, logged_in)
        link = await links.take(session, form.token, *_CONFIRMED)
        if link.purpose == "register":
            user = await _begin(session, link)
        elif link.purpose == "change":
            user = await _move(session, link)
        else:
            user = await _owner(session, link)
        user.email_verified_at = utcnow()
        try:
            await session.flush()
        except IntegrityError as error:  # another account has the address by now
            raise InvalidLinkError from error
        await links.end(session, user)
        await _record(session, user, f"user.{_ACTIONS[link.purpose]}", client)
        return user

    async def _require_asked(
        self,
        session: AsyncSession,
        form: Confirmation,
        client: Client,
        logged_in: UUID | None,
    ) -> None:
        link = await links.find(session, form.token, *_CONFIRMED)
        if link.ip is not None and link.ip == client.ip:
            return
        if link.user_id is not None and link.user_id == logged_in:
            return
        of_user = select(User.password_hash).where(User.id == link.user_id)
        stored = link.password_hash or await session.scalar(of_user)
        await release(session)
        if stored == NO_PASSWORD:  # another identity provider vouches for its owner
            return
        if not form.password or not await self._passwords.verify(form.password, stored):
            raise PasswordNeededError

    async def reset(
        self, session: AsyncSession, form: PasswordReset, client: Client
    ) -> None:
        """Give the account of the link a new password, and end all that came before.

        One password hash for links that work and links that do not. Raises
        InvalidLinkError, and ValidationFailedError for a weak password, which leaves
        the link as it was.
        """
        refuse_weak(form.password, "password")
        password_hash = await self._passwords.hash(form.password)
        link = await links.take(session, form.token, "reset", "invite")
        user = await _owner(session, link)
        refuse_weak(
            form.password, "password", user.email, user.username, user.full_name
        )
        user.password_hash = password_hash
        user.email_verified_at = user.email_verified_at or utcnow()
        await session.flush()
        await links.end(session, user)
        await self._auth.end_access_of(session, user.id)
        await self._logins.unlock(session, user.id, client.ip)
        if link.purpose == "reset":
            await mail.password_changed(session, user.id, user.email)
        await _record(session, user, "user.reset_password", client)


async def invite(
    session: AsyncSession, user: User, *, run_at: datetime | None = None
) -> None:
    """Have the owner of an account that was made for them choose its password."""
    links.ask(session, "invite", user.email, user_id=user.id, run_at=run_at)


async def _record(
    session: AsyncSession, user: User, action: str, client: Client
) -> None:
    """Into the audit; addresses do not belong there, it outlives them."""
    actor = Actor("user", user.id, client.ip)
    await audit.record(session, actor, action, target=("user", user.id))


async def _begin(session: AsyncSession, link: MailLink) -> User:
    """Make the account with what was given at this very sign-up, and no other."""
    named = select(User.id).where(User.username == link.username)
    taken = link.username and await session.scalar(named)
    assert link.password_hash is not None
    user = User(
        email=link.email,
        # Whose name was taken meanwhile chooses another one in their profile.
        username=None if taken else link.username,
        full_name=link.full_name,
        password_hash=link.password_hash,
    )
    session.add(user)
    return user


async def _move(session: AsyncSession, link: MailLink) -> User:
    """Change the account's address; the old one is told."""
    user = await _active(session, link)
    await mail.send(
        session, "email_changed", to=user.email, user_id=user.id, email=link.email
    )
    await links.end(session, user)  # of the old address
    user.email = link.email
    return user


async def _owner(session: AsyncSession, link: MailLink) -> User:
    """Whose link it is, if the address still is theirs."""
    user = await _active(session, link)
    if user.email != link.email:
        raise InvalidLinkError
    return user


async def _active(session: AsyncSession, link: MailLink) -> User:
    user = await session.scalar(
        select(User).where(User.id == link.user_id, User.status == "active")
    )
    if user is None:
        raise InvalidLinkError
    return user
