"""Logging in at the desk, and the life of a session there.

A session lasts one working day, however often it is refreshed: whoever may look into
other people's accounts proves each day who they are.
"""

from datetime import timedelta
from uuid import UUID

from sqlalchemy import or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import SecuritySettings
from app.core.database import Database, after_commit, changed_rows, release, utcnow
from app.core.passwords import Passwords
from app.core.tokens import ADMIN_AUDIENCE, STAFF_AUDIENCE, Tokens
from app.models import DeskRefreshToken, DeskSession
from app.schemas.desk import Kind
from app.schemas.user import Login, PasswordChange, TokenPair
from app.services import audit
from app.services.audit import Actor
from app.services.auth import Client, LoggedIn, refuse_weak
from app.services.desk.principal import (
    DeskPrincipals,
    DeskUser,
    alive,
    model_of,
    owner_column,
)
from app.services.lockout import Account
from app.services.login import Logins, WrongPasswordError
from app.services.refresh import Families, InvalidRefreshTokenError

AUDIENCES: dict[Kind, str] = {"admin": ADMIN_AUDIENCE, "staff": STAFF_AUDIENCE}

_SESSION = timedelta(hours=12)
_KEEP_ENDED_SESSIONS = timedelta(days=30)


class DeskAuth:
    def __init__(
        self,
        settings: SecuritySettings,
        *,
        passwords: Passwords,
        tokens: Tokens,
        principals: DeskPrincipals,
        logins: Logins,
    ) -> None:
        self._logins = logins
        self._passwords = passwords
        self._tokens = tokens
        self._principals = principals
        self._families = Families(
            settings, tokens, model=DeskRefreshToken, revoke=self._revoke
        )

    async def login(
        self, session: AsyncSession, kind: Kind, form: Login, client: Client
    ) -> LoggedIn:
        """One password hash on every path, one answer for everything that is wrong."""
        model = model_of(kind)
        name = form.login.strip().lower()
        column = model.email if "@" in name else model.username
        found = await session.execute(
            select(model.id, model.email, model.password_hash, model.status).where(
                column == name
            )
        )
        account = found.one_or_none()
        await release(session)
        stored: str | None = account.password_hash if account else None
        right = await self._passwords.verify(form.password, stored)
        attempt = await self._logins.begin(
            session,
            Account(
                kind,
                name,
                id=account.id if account else None,
                email=account.email if account else None,
            ),
            client.ip,
        )
        if account is None or stored is None or not right or account.status != "active":
            await self._logins.refuse(session, attempt)
        await self._logins.admit(session, attempt, otp=form.otp)
        await audit.record(session, Actor(kind, account.id, client.ip), "desk.login")
        return LoggedIn(
            tokens=await self._begin_session(session, kind, account.id, client),
            outdated_hash=stored if self._passwords.outdated(stored) else None,
        )

    async def renew_hash(
        self, database: Database, kind: Kind, *, outdated: str, password: str
    ) -> None:
        """Store a hash of today's scheme, unless the password changed meanwhile."""
        model = model_of(kind)
        renewed = await self._passwords.hash(password)
        async with database.unit_of_work() as session:
            await session.execute(
                update(model)
                .where(model.password_hash == outdated)
                .values(password_hash=renewed)
            )

    async def refresh(
        self, session: AsyncSession, kind: Kind, refresh_token: str
    ) -> TokenPair:
        """Spend a refresh token for a new pair."""
        session_id, successor = await self._families.spend(session, refresh_token)
        now = utcnow()
        model, owner = model_of(kind), owner_column(kind)
        family = await session.scalar(
            select(DeskSession)
            .join(model, owner == model.id)
            .where(DeskSession.id == session_id, alive(model, now))
        )
        if family is None:  # also one of the other kind
            raise InvalidRefreshTokenError
        family.last_used_at = now
        account_id = family.admin_id or family.staff_id
        assert account_id is not None
        return self._pair(kind, account_id, session_id, successor)

    async def logout(self, session: AsyncSession, refresh_token: str) -> None:
        """End the token's session; a token of no session is as good as logged out."""
        session_id = await self._families.family_of(session, refresh_token)
        if session_id is not None:
            await self._revoke(session, session_id)

    async def change_password(
        self,
        session: AsyncSession,
        desk_user: DeskUser,
        form: PasswordChange,
        client: Client,
    ) -> None:
        """One's own; raises ValidationFailedError for a weak or a wrong one."""
        model, kind = model_of(desk_user.kind), desk_user.kind
        found = await session.execute(
            select(
                model.email, model.username, model.full_name, model.password_hash
            ).where(model.id == desk_user.id)
        )
        account = found.one()
        await release(session)
        refuse_weak(form.new_password, "new_password", *account[:3])
        stored = account.password_hash
        right = await self._passwords.verify(form.current_password, stored)
        renewed = await self._passwords.hash(form.new_password) if right else ""
        await self._logins.reprove(
            session,
            Account(kind, "", desk_user.id, account.email),
            client.ip,
            right=right,
            field="current_password",
        )
        changed = await session.execute(
            update(model)
            .where(model.id == desk_user.id, model.password_hash == stored)
            .values(password_hash=renewed)
        )
        if changed_rows(changed) == 0:  # another admin has set one meanwhile
            raise WrongPasswordError("current_password")
        if form.end_other_sessions:
            await self.end_sessions(
                session, kind, desk_user.id, but=desk_user.session_id
            )
        await audit.record(
            session,
            desk_user.actor(client.ip),
            f"{kind}.change",
            target=(kind, desk_user.id),
            after={"password": "changed"},
        )

    async def end_sessions(
        self,
        session: AsyncSession,
        kind: Kind,
        account_id: UUID,
        *,
        but: UUID | None = None,
    ) -> None:
        """All of an account's, at once; its rights are read anew as well."""
        statement = update(DeskSession).where(
            owner_column(kind) == account_id, DeskSession.revoked_at.is_(None)
        )
        if but is not None:
            statement = statement.where(DeskSession.id != but)
        await session.execute(statement.values(revoked_at=utcnow()))
        after_commit(session, lambda: self._principals.forget(account_id))

    async def purge(self, database: Database) -> None:
        """Delete sessions that ended long ago, with their tokens."""
        before = utcnow() - _KEEP_ENDED_SESSIONS
        await database.delete_in_chunks(
            DeskSession,
            or_(DeskSession.expires_at < before, DeskSession.revoked_at < before),
        )

    async def _begin_session(
        self, session: AsyncSession, kind: Kind, account_id: UUID, client: Client
    ) -> TokenPair:
        begun = DeskSession(
            admin_id=account_id if kind == "admin" else None,
            staff_id=account_id if kind == "staff" else None,
            expires_at=utcnow() + _SESSION,
            ip=client.ip,
            user_agent=client.user_agent and client.user_agent[:255],
        )
        session.add(begun)
        await session.flush()
        token = await self._families.begin(session, begun.id)
        return self._pair(kind, account_id, begun.id, token)

    async def _revoke(self, session: AsyncSession, session_id: UUID) -> None:
        ended = await session.get_one(DeskSession, session_id)
        ended.revoked_at = ended.revoked_at or utcnow()
        account_id = ended.admin_id or ended.staff_id
        assert account_id is not None
        after_commit(session, lambda: self._principals.forget(account_id))

    def _pair(
        self, kind: Kind, account_id: UUID, session_id: UUID, refresh_token: str
    ) -> TokenPair:
        access = self._tokens.issue_access(
            account_id=account_id,
            session_id=session_id,
            now=utcnow(),
            audience=AUDIENCES[kind],
        )
        return TokenPair(
            access_token=access,
            refresh_token=refresh_token,
            expires_in=int(self._tokens.access_life.total_seconds()),
        )
