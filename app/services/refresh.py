"""Refresh tokens: each is used once, and one that is used again ends its family.

The rules are those of OAuth 2.0 Security Best Current Practice (RFC 9700, section
4.14.2). A family is what one login began.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from uuid import UUID

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import SecuritySettings
from app.core.database import utcnow
from app.core.exceptions import UnauthenticatedError
from app.core.tokens import Tokens, new_refresh_token
from app.models import AnyRefreshToken

Revoke = Callable[[AsyncSession, UUID], Awaitable[None]]


class InvalidRefreshTokenError(UnauthenticatedError):
    code = "invalid_refresh_token"

    def __init__(self) -> None:
        super().__init__("This refresh token is not valid: log in again.")


class RefreshTokenReusedError(InvalidRefreshTokenError):
    """Somebody holds a copy: the session's end is stored although the request fails."""

    keeps_changes = True


class Families:
    """The families whose tokens are stored as `model`; `revoke` ends one of them."""

    def __init__(
        self,
        settings: SecuritySettings,
        tokens: Tokens,
        *,
        model: type[AnyRefreshToken],
        revoke: Revoke,
    ) -> None:
        self._grace = timedelta(seconds=settings.refresh_grace_seconds)
        self._tokens = tokens
        self._model = model
        self._revoke = revoke

    async def begin(self, session: AsyncSession, session_id: UUID) -> str:
        """The first token of a session that was just stored."""
        token = new_refresh_token()
        self._add(session, session_id, token)
        return token

    async def family_of(self, session: AsyncSession, token: str) -> UUID | None:
        """The id of the session that a token belongs to, used or not."""
        return await session.scalar(
            select(self._model.session_id).where(
                self._model.token_hash == self._tokens.stored(token)
            )
        )

    async def spend(self, session: AsyncSession, token: str) -> tuple[UUID, str]:
        """The session's id and the token's successor.

        Inside the grace time a spent token gives the same successor again: to a client
        that lost the answer, and to tabs that refresh at once. Later it means a copy.
        Whether the session is still alive, the caller finds out.
        """
        successor = self._tokens.successor(token)
        used = self._tokens.stored(token)
        session_id = await session.scalar(
            update(self._model)
            .where(self._model.token_hash == used, self._model.used_at.is_(None))
            .values(used_at=utcnow())
            .returning(self._model.session_id)
        )
        if session_id is None:
            return await self._within_grace(session, used), successor
        self._add(session, session_id, successor)
        return session_id, successor

    async def _within_grace(self, session: AsyncSession, used: bytes) -> UUID:
        token = await session.scalar(
            select(self._model).where(self._model.token_hash == used)
        )
        if token is None or token.used_at is None:
            raise InvalidRefreshTokenError
        if utcnow() - token.used_at > self._grace:
            await self._revoke(session, token.session_id)
            raise RefreshTokenReusedError
        return token.session_id

    def _add(self, session: AsyncSession, session_id: UUID, token: str) -> None:
        token_hash = self._tokens.stored(token)
        session.add(self._model(session_id=session_id, token_hash=token_hash))
