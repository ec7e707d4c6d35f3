"""Registering, logging in, and the life of a session."""

from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import SecuritySettings
from app.core.database import Database, after_commit, changed_rows, release, utcnow
from app.core.exceptions import (
    ConflictError,
    FieldError,
    ValidationFailedError,
)
from app.core.passwords import Passwords, weakness
from app.core.tokens import Tokens, expires_after
from app.models import ApiKey, RefreshToken, User, UserSession
from app.schemas.user import (
    Login,
    PasswordChange,
    SessionRead,
    TokenPair,
    UserCreate,
)
from app.services import audit, mail
from app.services.audit import Actor
from app.services.authorization import Principal, require, visible_to
from app.services.link import links
from app.services.lockout import Account, Attempt
from app.services.login import Logins, WrongPasswordError
from app.services.principal import Principals, alive
from app.services.refresh import Families, InvalidRefreshTokenError

_KEEP_ENDED_SESSIONS = timedelta(days=30)


@dataclass(frozen=True, slots=True)
class Client:
    """Where a login came from, for its owner to recognise."""

    ip: str | None
    user_agent: str | None


@dataclass(frozen=True, slots=True)
class LoggedIn:
    tokens: TokenPair
    outdated_hash: str | None
    """The stored hash, where it ought to be rewritten."""


class Auth:
    def __init__(
        self,
        settings: SecuritySettings,
        *,
        passwords: Passwords,
        tokens: Tokens,
        principals: Principals,
        logins: Logins,
    ) -> None:
        self._settings = settings
        self._logins = logins
        self._passwords = passwords
        self._tokens = tokens
        self._principals = principals
        self._families = Families(
            settings, tokens, model=RefreshToken, revoke=self._revoke_one
        )

    async def register(self, session: AsyncSession, form: UserCreate) -> User:
        """Raises ValidationFailedError for a weak password, ConflictError if taken."""
        password_hash = await self.first_hash(form)
        await refuse_taken(session, email=form.email, username=form.username)
        user = User(
            email=form.email,
            username=form.username,
            full_name=form.full_name,
            password_hash=password_hash,
        )
        session.add(user)
        try:
            await session.flush()
        except IntegrityError as error:  # a twin registered at the same moment
            raise taken(
                "email" if "email" in str(error.orig) else "username"
            ) from error
        return user

    async def first_hash(self, form: UserCreate) -> str:
        """The hash of a new account's password; raises ValidationFailedError if weak.

        Before the first statement: no connection waits while a core hashes.
        """
        refuse_weak(
            form.password, "password", form.email, form.username, form.full_name
        )
        return await self._passwords.hash(form.password)

    async def login(
        self, session: AsyncSession, form: Login, client: Client
    ) -> LoggedIn:
        """One password hash on every path, one answer for everything that is wrong."""
        name = form.login.strip().lower()
        column = User.email if "@" in name else User.username
        found = await session.execute(
            select(User.id, User.email, User.password_hash).where(column == name)
        )
        user = found.one_or_none()
        await release(session)
        stored: str | None = user.password_hash if user else None
        right = await self._passwords.verify(form.password, stored)
        account = Account(
            "user",
            name,
            id=user.id if user else None,
            email=user.email if user else None,
        )
        attempt = await self._logins.begin(session, account, client.ip)
        if (
            user is None
            or stored is None
            or not right
            or not await _hold(session, user.id, stored)
        ):
            await self._logins.refuse(session, attempt)
        return LoggedIn(
            tokens=await self.admit(session, attempt, client, otp=form.otp),
            outdated_hash=stored if self._passwords.outdated(stored) else None,
        )

    async def admit(
        self,
        session: AsyncSession,
        attempt: Attempt,
        client: Client,
        *,
        otp: str | None,
    ) -> TokenPair:
        """Begin the session of a user who has proved a first factor.

        Raises MfaRequiredError where the second one is missing, and
        InvalidCredentialsError where it is wrong or the account is locked.
        """
        user_id = attempt.account.id
        assert user_id is not None
        await self._logins.admit(session, attempt, otp=otp)
        await audit.record(session, Actor("user", user_id, client.ip), "user.login")
        return await self._begin_session(session, user_id, client)

    async def renew_hash(
        self, database: Database, *, outdated: str, password: str
    ) -> None:
        """Store a hash of today's scheme, unless the password changed meanwhile."""
        renewed = await self._passwords.hash(password)
        async with database.unit_of_work() as session:
            await session.execute(
                update(User)
                .where(User.password_hash == outdated)
                .values(password_hash=renewed)
            )

    async def refresh(self, session: AsyncSession, refresh_token: str) -> TokenPair:
        """Spend a refresh token for a new pair."""
        session_id, successor = await self._families.spend(session, refresh_token)
        now = utcnow()
        family = await session.scalar(
            select(UserSession)
            .join(User, User.id == UserSession.user_id)
            .where(UserSession.id == session_id, alive(now))
        )
        if family is None:
            raise InvalidRefreshTokenError
        family.last_used_at = now
        return self._pair(family.user_id, session_id, successor)

    async def logout(self, session: AsyncSession, refresh_token: str) -> None:
        """End the token's session; a token of no session is as good as logged out."""
        session_id = await self._families.family_of(session, refresh_token)
        if session_id is not None:
            await self._revoke_one(session, session_id)

    async def change_password(
        self,
        session: AsyncSession,
        principal: Principal,
        form: PasswordChange,
        client: Client,
    ) -> None:
        """Raises ValidationFailedError for a weak or a wrong one."""
        user_id = principal.user_id
        found = await session.execute(
            select(User.email, User.username, User.full_name, User.password_hash).where(
                User.id == user_id
            )
        )
        user = found.one()
        await release(session)
        refuse_weak(form.new_password, "new_password", *user[:3])
        right = await self._passwords.verify(form.current_password, user.password_hash)
        renewed = await self._passwords.hash(form.new_password) if right else ""
        await self._logins.reprove(
            session,
            Account("user", "", user_id, user.email),
            client.ip,
            right=right,
            field="current_password",
        )
        changed = await session.execute(
            update(User)
            .where(User.id == user_id, User.password_hash == user.password_hash)
            .values(password_hash=renewed)
        )
        if changed_rows(changed) == 0:  # a reset came between, perhaps to shut us out
            raise WrongPasswordError("current_password")
        await links.end_access(session, user_id)
        await audit.record(
            session,
            Actor("user", user_id, client.ip),
            "user.change_password",
            target=("user", user_id),
        )
        await mail.password_changed(session, user_id, user.email)
        if form.end_other_sessions:
            await self._revoke(
                session,
                UserSession.user_id == user_id,
                UserSession.id != principal.session_id,
            )

    async def sessions(
        self, session: AsyncSession, principal: Principal
    ) -> list[SessionRead]:
        """The live ones, newest first."""
        result = await session.scalars(
            visible_to(principal, UserSession)
            .join(User, User.id == UserSession.user_id)
            .where(alive(utcnow()))
            .order_by(UserSession.id.desc())
        )
        return [
            SessionRead.model_validate(
                {**vars(live), "current": live.id == principal.session_id}
            )
            for live in result
        ]

    async def end_session(
        self, session: AsyncSession, principal: Principal, session_id: UUID
    ) -> None:
        found = await require(session, principal, UserSession, session_id)
        await self._revoke(session, UserSession.id == found.id)

    async def end_sessions_of(self, session: AsyncSession, user_id: UUID) -> None:
        """Their API keys, too, end for as long as the account is not active."""
        await self._revoke(session, UserSession.user_id == user_id)
        after_commit(session, lambda: self._principals.forget_user(user_id))

    async def end_access_of(self, session: AsyncSession, user_id: UUID) -> None:
        """End sessions and API keys for good: somebody else may have had them."""
        await session.execute(
            update(ApiKey)
            .where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
            .values(revoked_at=utcnow())
        )
        await self.end_sessions_of(session, user_id)

    async def purge(self, database: Database) -> None:
        """Delete sessions that ended long ago, with their tokens."""
        before = utcnow() - _KEEP_ENDED_SESSIONS
        await database.delete_in_chunks(
            UserSession,
            or_(UserSession.expires_at < before, UserSession.revoked_at < before),
        )

    async def _begin_session(
        self, session: AsyncSession, user_id: UUID, client: Client
    ) -> TokenPair:
        agent = client.user_agent and client.user_agent[:255]
        await mail.new_login(session, user_id, ip=client.ip, user_agent=agent)
        begun = UserSession(
            user_id=user_id,
            expires_at=expires_after(self._settings.refresh_token_days),
            ip=client.ip,
            user_agent=agent,
        )
        session.add(begun)
        await session.flush()
        token = await self._families.begin(session, begun.id)
        return self._pair(user_id, begun.id, token)

    async def _revoke_one(self, session: AsyncSession, session_id: UUID) -> None:
        await self._revoke(session, UserSession.id == session_id)

    async def _revoke(self, session: AsyncSession, *which: ColumnElement[bool]) -> None:
        ended = await session.scalars(
            update(UserSession)
            .where(*which, UserSession.revoked_at.is_(None))
            .values(revoked_at=utcnow())
            .returning(UserSession.id)
            .execution_options(synchronize_session=False)
        )
        ids = ended.all()
        after_commit(session, lambda: self._principals.forget(*ids))

    def _pair(self, user_id: UUID, session_id: UUID, refresh_token: str) -> TokenPair:
        access = self._tokens.issue_access(
            account_id=user_id, session_id=session_id, now=utcnow()
        )
        return TokenPair(
            access_token=access,
            refresh_token=refresh_token,
            expires_in=int(self._tokens.access_life.total_seconds()),
        )


async def _hold(session: AsyncSession, user_id: UUID, password_hash: str) -> bool:
    """Keep an account as it was before its password was hashed, until the end.

    False where it is suspended, or the password was changed meanwhile: that ended the
    sessions, and one that begins now would escape.
    """
    held = await session.scalar(
        select(User.id)
        .where(
            User.id == user_id,
            User.password_hash == password_hash,
            User.status == "active",
        )
        .with_for_update(read=True)
    )
    return held is not None


async def refuse_taken(
    session: AsyncSession, *, email: str, username: str | None
) -> None:
    same = [User.email == email]
    if username is not None:  # compared with None, it would meet all without a name
        same.append(User.username == username)
    for other in await session.scalars(select(User).where(or_(*same))):
        raise taken("email" if other.email == email else "username")


async def refuse_taken_username(session: AsyncSession, username: str) -> None:
    if await session.scalar(select(User.id).where(User.username == username)):
        raise taken("username")


def taken(field: str) -> ConflictError:
    what = "address" if field == "email" else "name"
    return ConflictError(
        f"There is already an account with this {what}.",
        code=f"{field}_taken",
        errors=[FieldError(path=field, message="is taken")],
    )


def refuse_weak(password: str, field: str, *personal: str | None) -> None:
    if reason := weakness(password, *personal):
        raise _wrong_field(field, reason)


def _wrong_field(path: str, message: str) -> ValidationFailedError:
    return ValidationFailedError(
        message, errors=[FieldError(path=path, message=message)]
    )
