"""Who a request is from, without asking the database each time."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select

from app.core.cache import Cache
from app.core.database import Database, utcnow
from app.core.exceptions import UnauthenticatedError
from app.core.tokens import AccessClaims
from app.models import User, UserSession
from app.services.authorization import Principal
from app.services.chat.reply import Follower

_CACHED = 10_000
_SECONDS = 60
# Another process's revocations are seen only by asking again.
_SECONDS_AMONG_OTHERS = 1


class Principals:
    """The principals of live sessions, and the streams that hang on them."""

    def __init__(self, database: Database, *, alone: bool) -> None:
        """`alone` where no other process can end sessions in this database."""
        self._database = database
        self._cache: Cache[UUID, Principal] = Cache(
            size=_CACHED, ttl=_SECONDS if alone else _SECONDS_AMONG_OTHERS
        )
        self._followers: dict[UUID, set[Follower]] = {}

    async def of(self, claims: AccessClaims) -> Principal:
        """Raises UnauthenticatedError where the session or its user is no more."""
        sid = claims.session_id
        principal = await self._cache.get(sid, lambda: self._load(claims))
        if principal.user_id != claims.user_id:  # it was loaded for another token
            raise _ended()
        return principal

    def forget(self, *session_ids: UUID) -> None:
        """Make a revocation felt: by the next request, and by open streams at once."""
        gone = frozenset(session_ids)
        self._cache.drop(lambda principal: principal.session_id in gone)
        for session_id in gone:
            for follower in self._followers.get(session_id, ()):
                follower.close(_ended())

    @contextmanager
    def following(self, principal: Principal, follower: Follower) -> Iterator[None]:
        """Tie a stream to its session for as long as the block runs."""
        followers = self._followers.setdefault(principal.session_id, set())
        followers.add(follower)
        try:
            yield
        finally:
            followers.discard(follower)
            if not followers:
                self._followers.pop(principal.session_id, None)

    async def _load(self, claims: AccessClaims) -> Principal:
        statement = (
            select(UserSession.user_id)
            .join(User, User.id == UserSession.user_id)
            .where(
                UserSession.id == claims.session_id,
                UserSession.user_id == claims.user_id,
                alive(utcnow()),
            )
        )
        async with self._database.unit_of_work(read_only=True) as session:
            user_id = await session.scalar(statement)
        if user_id is None:
            raise _ended()
        return Principal(user_id=user_id, session_id=claims.session_id)


def alive(now: datetime) -> ColumnElement[bool]:
    """What makes a session count; the statement joins `User`."""
    return and_(
        UserSession.revoked_at.is_(None),
        UserSession.expires_at > now,
        User.status == "active",
    )


def _ended() -> UnauthenticatedError:
    return UnauthenticatedError("This session has ended: log in again.")
