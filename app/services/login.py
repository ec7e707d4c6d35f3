"""What every login comes to, of a user or at the desk, once a first factor is proved.

The first factor is a password, or the word of another identity provider.
"""

import math
from datetime import timedelta
from typing import NoReturn
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import utcnow
from app.core.exceptions import (
    FieldError,
    UnauthenticatedError,
    ValidationFailedError,
)
from app.services import audit, mail
from app.services.audit import Actor
from app.services.lockout import Account, Attempt, Lockout
from app.services.mfa import Mfa, MfaRequiredError


class InvalidCredentialsError(UnauthenticatedError):
    """That it was tried is stored although the request fails."""

    code = "invalid_credentials"
    keeps_changes = True

    def __init__(self) -> None:
        super().__init__("These credentials are not right.")


class WrongPasswordError(ValidationFailedError):
    """Of who is logged in. That it was tried is stored although the request fails."""

    keeps_changes = True

    def __init__(self, field: str) -> None:
        message = "This is not your current password."
        super().__init__(message, errors=[FieldError(path=field, message=message)])


class Logins:
    def __init__(self, lockout: Lockout, mfa: Mfa) -> None:
        self._lockout = lockout
        self._mfa = mfa

    async def begin(
        self, session: AsyncSession, account: Account, ip: str | None
    ) -> Attempt:
        """Raises RateLimitedError where the address has failed too often."""
        return await self._lockout.begin(session, account, ip)

    async def refuse(self, session: AsyncSession, attempt: Attempt) -> NoReturn:
        """Count the failure; whatever it was, the answer is the same."""
        await _count(session, attempt)
        raise InvalidCredentialsError

    async def reprove(
        self,
        session: AsyncSession,
        account: Account,
        ip: str | None,
        *,
        right: bool,
        field: str,
    ) -> None:
        """Judge a password that somebody who is logged in is asked for again.

        A wrong one is a failed login, or a stolen session would be a way to guess. It
        raises WrongPasswordError, and so does a right one while the account is locked.
        """
        attempt = await self.begin(session, account, ip)
        if attempt.locked or not right:
            await _count(session, attempt)
            raise WrongPasswordError(field)
        await self._lockout.passed(session, attempt)

    async def admit(
        self, session: AsyncSession, attempt: Attempt, *, otp: str | None
    ) -> None:
        """Let in whoever has proved the first factor, by the second where there is one.

        Raises MfaRequiredError where that is missing, and InvalidCredentialsError where
        it is wrong or the account is locked.
        """
        account_id = attempt.account.id
        assert account_id is not None
        if attempt.locked:
            await self.refuse(session, attempt)
        if await self._mfa.enabled(session, account_id):
            if otp is None:
                raise MfaRequiredError
            if not await self._mfa.accepts(session, account_id, otp):
                await self.refuse(session, attempt)
        await self._lockout.passed(session, attempt)

    async def unlock(
        self, session: AsyncSession, account_id: UUID, ip: str | None
    ) -> None:
        """Let in an owner who has proved by a mailed link that they are at `ip`."""
        await self._lockout.clear(session, account_id)
        await self._lockout.welcome(session, account_id, ip)


async def _count(session: AsyncSession, attempt: Attempt) -> None:
    wait = attempt.failed()
    if wait is not None and attempt.account.id is not None:
        await _tell(session, attempt, attempt.account.id, wait)


async def _tell(
    session: AsyncSession, attempt: Attempt, account_id: UUID, wait: timedelta
) -> None:
    """Once for a row of failures: who wants to annoy the owner gets no more mails."""
    account = attempt.account
    actor, target = Actor("system", ip=attempt.ip), (account.kind, account_id)
    await audit.record(session, actor, f"{account.kind}.lock", target=target)
    if account.email is not None:
        await mail.send(
            session,
            "locked_out",
            to=account.email,
            user_id=account_id if account.kind == "user" else None,
            minutes=math.ceil(wait.total_seconds() / 60),
            **mail.circumstances(utcnow(), attempt.ip),
        )
