"""Accounts that are put away: archived, or deleted and perhaps restored."""

from datetime import timedelta
from functools import partial
from typing import Any
from uuid import UUID

from sqlalchemy import delete, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import LiveSettings
from app.core.crypto import Crypto
from app.core.database import after_commit, release, utcnow
from app.core.exceptions import (
    ConflictError,
    FieldError,
    NotFoundError,
)
from app.core.passwords import NO_PASSWORD, Passwords
from app.models import Chat, DeletedUser, MailLink, Message, User
from app.schemas.account import OwnDeletion, Restoration
from app.services import audit, mail
from app.services import job as jobs
from app.services.account import sealing
from app.services.audit import Actor
from app.services.auth import Auth
from app.services.authorization import Principal, require_fresh
from app.services.chat.turns import Turns
from app.services.lockout import Account
from app.services.login import Logins

_STRAGGLERS = timedelta(seconds=10)
"""By then a request that came just before the end has begun its turn."""


class Accounts:
    def __init__(
        self,
        live: LiveSettings,
        *,
        crypto: Crypto,
        passwords: Passwords,
        auth: Auth,
        logins: Logins,
        turns: Turns,
    ) -> None:
        self._live = live
        self._crypto = crypto
        self._passwords = passwords
        self._auth = auth
        self._logins = logins
        self._turns = turns

    async def delete_own(
        self,
        session: AsyncSession,
        principal: Principal,
        form: OwnDeletion,
        *,
        ip: str | None,
    ) -> None:
        """Raises ValidationFailedError where the password is not theirs.

        Who has none, for another identity provider lets them in, needs a fresh login.
        """
        user_id = principal.user_id
        found = await session.execute(
            select(User.email, User.password_hash).where(User.id == user_id)
        )
        email, stored = found.one()
        await release(session)
        right = await self._passwords.verify(form.password or "", stored)
        if stored == NO_PASSWORD:
            require_fresh(principal.authenticated_at)
        else:
            account = Account("user", "", user_id, email)
            await self._logins.reprove(
                session, account, ip, right=right, field="password"
            )
        actor = Actor("user", user_id, ip)
        await self.delete(session, actor, user_id, reason=form.reason)

    async def delete(
        self,
        session: AsyncSession,
        actor: Actor,
        user_id: UUID,
        *,
        reason: str | None = None,
    ) -> DeletedUser:
        """Hide the account and all it owns, until it is restored or erased."""
        user = await _lock(session, user_id)
        email = user.email
        sealed = await sealing.seal(session, self._crypto, user_id, reason=reason)
        now, keep = utcnow(), self._live.current.accounts
        deleted = DeletedUser(
            id=user_id,
            sealed=sealed,
            deleted_at=now,
            deleted_by=actor.kind,
            deleted_by_id=actor.id,
            purge_at=now + timedelta(days=keep.keep_deleted_days),
        )
        session.add(deleted)
        await session.flush()
        await _change(session, user_id, sealing.emptied(user_id))
        await session.execute(delete(MailLink).where(MailLink.user_id == user_id))
        await self.end_all(session, user_id)
        await audit.record(
            session,
            actor,
            "user.delete",
            target=("user", user_id),
            after={"purge_at": deleted.purge_at},
        )
        await mail.send(
            session,
            "account_deleted",
            to=email,
            user_id=user_id,
            until=f"{deleted.purge_at:%d %B %Y}",
            **mail.circumstances(now, actor.ip if actor.kind == "user" else None),
        )
        return deleted

    async def restore(
        self, session: AsyncSession, actor: Actor, user_id: UUID, form: Restoration
    ) -> None:
        """Bring back the account with all that it owned; its sessions stay ended.

        Raises NotFoundError for one that is not deleted, or is being erased, and
        ConflictError where another account has its address or name by now.
        """
        deleted = await session.scalar(
            select(DeletedUser)
            .where(DeletedUser.id == user_id, DeletedUser.purge_at > utcnow())
            .with_for_update()
        )
        if deleted is None:
            raise not_deleted()
        row = sealing.unseal(self._crypto, user_id, deleted.sealed).row
        if form.username is not None:
            row["username"] = form.username
        await _refuse_taken(session, row)
        await _change(session, user_id, row)
        await session.execute(delete(DeletedUser).where(DeletedUser.id == user_id))
        target = ("user", user_id)
        await audit.record(session, actor, "user.restore", target=target)

    async def archive(self, session: AsyncSession, actor: Actor, user_id: UUID) -> None:
        """Keep the account as it is, but let nobody use it until it is activated."""
        user = await _lock(session, user_id)
        before = user.status
        await _change(session, user_id, {"status": "archived"})
        await self.end_all(session, user_id)
        await audit.record(
            session,
            actor,
            "user.archive",
            target=("user", user_id),
            before={"status": before},
            after={"status": "archived"},
        )

    async def end_all(self, session: AsyncSession, user_id: UUID) -> None:
        """End what a user who was just locked out still has: sessions and replies."""
        await self._auth.end_sessions_of(session, user_id)
        await self.end_turns(session, user_id)
        jobs.enqueue(
            session,
            "account.end_turns",
            user_id=str(user_id),
            run_at=utcnow() + _STRAGGLERS,
        )

    async def end_turns(self, session: AsyncSession, user_id: UUID) -> None:
        """End the replies that are being written to a user who cannot log in."""
        running = await session.scalars(
            select(Message.chat_id)
            .join(Chat, Chat.id == Message.chat_id)
            .join(User, User.id == Chat.user_id)
            .where(
                User.id == user_id,
                User.status != "active",
                Message.lease_expires_at.is_not(None),
            )
        )
        for chat_id in set(running):
            after_commit(session, partial(self._turns.abandon, chat_id))


async def _lock(session: AsyncSession, user_id: UUID) -> User:
    user = await session.scalar(
        select(User)
        .where(User.id == user_id, User.status != "deleted")
        .with_for_update()
    )
    if user is None:
        raise NotFoundError("There is no user with this id.")
    return user


async def _change(session: AsyncSession, user_id: UUID, row: dict[str, Any]) -> None:
    await session.execute(
        update(User)
        .where(User.id == user_id)
        .values(**row)
        .execution_options(synchronize_session=False)
    )


async def _refuse_taken(session: AsyncSession, row: dict[str, Any]) -> None:
    same = [User.email == row["email"]]
    if row["username"] is not None:  # null would meet all without a name
        same.append(User.username == row["username"])
    others = (await session.scalars(select(User).where(or_(*same)))).all()
    if any(other.email == row["email"] for other in others):
        raise _taken("email", "delete that account first.")
    if others:
        raise _taken("username", "send another `username` along.")


def not_deleted() -> NotFoundError:
    return NotFoundError("There is no deleted user with this id.")


def _taken(field: str, mend: str) -> ConflictError:
    return ConflictError(
        f"Another account has this {field} by now: {mend}",
        code=f"{field}_taken",
        errors=[FieldError(path=field, message="is taken")],
    )
