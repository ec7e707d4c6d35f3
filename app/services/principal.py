"""Who a request is from, without asking the database each time."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select

from app.core.bus import Bus
from app.core.cache import Cache
from app.core.database import Database, utcnow
from app.core.exceptions import AppError, UnauthenticatedError
from app.core.keys import KeyKind
from app.core.tokens import AccessClaims
from app.models import ApiKey, User, UserSession
from app.services.authorization import Principal
from app.services.chat.reply import Follower
from app.services.keyring import Grant, Keyring, live
from app.services.mfa import Mfa

_CACHED = 10_000
_SECONDS = 60
# While others cannot be heard, their revocations are seen only by asking again.
_SECONDS_UNHEARD = 0.5
_FORGET = "session.forget"
_FORGET_USER = "user.forget"
"""External applications may listen to both, see docs/INTEGRATION_GUIDE.md."""
_REREAD = "key.reread"


class Principals:
    """The principals of live sessions and keys, and the streams that hang on them."""

    def __init__(self, database: Database, bus: Bus, mfa: Mfa) -> None:
        self._database = database
        self._mfa = mfa
        self._bus = bus
        self._cache: Cache[UUID, Principal] = Cache(size=_CACHED, ttl=self._trusted_for)
        self.keys = Keyring(database, ttl=self._trusted_for)
        self._followers: dict[UUID, set[Follower]] = {}
        self._followed: dict[UUID, UUID] = {}
        """The user of each session or key that a stream hangs on."""
        self._ended: dict[UUID, float] = {}
        """When sessions, keys, and all of a user's ended; the oldest are forgotten."""
        self._told: list[Callable[[frozenset[UUID], UUID | None], object]] = []
        mfa.on_removal(self.forget_user)
        self._watcher: asyncio.Task[None] | None = None

    async def of(self, claims: AccessClaims) -> Principal:
        """Raises UnauthenticatedError where the session or its user is no more."""
        sid = claims.session_id
        principal = await self._cache.get(sid, lambda: self._load(claims))
        if principal.user_id != claims.account_id:  # it was loaded for another token
            raise _ended()
        return principal

    async def of_key(self, key: str, *, ip: str | None) -> Principal:
        """The same for an API key, which came from that address."""
        grant = await self.keys.get(key, KeyKind.USER, ip=ip)
        assert grant.principal is not None
        return grant.principal

    def known_key(self, key: str, ip: str | None) -> Principal | None:
        """The same at once; None where only `of_key` can tell."""
        grant = self.keys.known(key, KeyKind.USER, ip=ip)
        return None if grant is None else grant.principal

    async def service_of(self, key: str, *, ip: str | None) -> Grant:
        """What the service key of an external application allows."""
        return await self.keys.get(key, KeyKind.SERVICE, ip=ip)

    def forget(self, *session_ids: UUID) -> None:
        """Make a revocation felt: by the next request, and by open streams at once.

        The ids are those of sessions, of API keys, of service keys.
        """
        self._forget_here(frozenset(session_ids))
        for session_id in session_ids:
            self._bus.say(_FORGET, session_id.bytes)

    def forget_user(self, user_id: UUID) -> None:
        """The same for all that a user is logged in with, keys too."""
        self._forget_user_here(user_id)
        self._bus.say(_FORGET_USER, user_id.bytes)

    def reread(self, key_id: UUID) -> None:
        """Have a changed key read anew by the next request; its streams go on."""
        self.keys.drop(lambda grant: grant.id == key_id)
        self._bus.say(_REREAD, key_id.bytes)

    async def open(self) -> None:
        await self._bus.listen(_FORGET, self._hear)
        await self._bus.listen(_REREAD, self._hear_of_change)
        await self._bus.listen(_FORGET_USER, self._hear_of_user)
        self._bus.on_gap(self._forget_all)
        self._watcher = asyncio.create_task(self._watch())
        await self.keys.open()

    async def close(self) -> None:
        await self.keys.close()
        await self._bus.unlisten(_FORGET, self._hear)
        await self._bus.unlisten(_REREAD, self._hear_of_change)
        await self._bus.unlisten(_FORGET_USER, self._hear_of_user)
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher

    def _hear(self, session_id: bytes) -> None:
        self._forget_here(frozenset([UUID(bytes=session_id)]))

    def _hear_of_change(self, key_id: bytes) -> None:
        changed = UUID(bytes=key_id)
        self.keys.drop(lambda grant: grant.id == changed)

    def _hear_of_user(self, user_id: bytes) -> None:
        self._forget_user_here(UUID(bytes=user_id))

    def _forget_all(self) -> None:
        self._cache.drop(lambda _: True)
        self.keys.drop(lambda _: True)

    def on_end(self, tell: Callable[[frozenset[UUID], UUID | None], object]) -> None:
        """Have `tell` called with the ids of sessions and keys that end, wherever.

        Or with the id of a user, of whom all do.
        """
        self._told.append(tell)

    def _forget_user_here(self, user_id: UUID) -> None:
        for tell in self._told:
            tell(frozenset(), user_id)
        self._note_ends(user_id)
        self._cache.drop(lambda principal: principal.user_id == user_id)
        self.keys.drop(lambda grant: grant.owner == user_id)
        theirs = {sid for sid, user in self._followed.items() if user == user_id}
        self._forget_here(frozenset(theirs))

    def _forget_here(self, gone: frozenset[UUID]) -> None:
        self._cache.drop(lambda principal: principal.session_id in gone)
        self.keys.drop(lambda grant: grant.id in gone)
        for tell in self._told:
            tell(gone, None)
        self._note_ends(*gone)
        for session_id in gone:
            for follower in self._followers.get(session_id, ()):
                follower.close(_ended())

    @contextmanager
    def following(self, principal: Principal, follower: Follower) -> Iterator[None]:
        """Tie a stream to its session for as long as the block runs."""
        followers = self._followers.setdefault(principal.session_id, set())
        followers.add(follower)
        self._followed[principal.session_id] = principal.user_id
        try:
            yield
        finally:
            follower.leave()
            followers.discard(follower)
            if not followers:
                self._followers.pop(principal.session_id, None)
                self._followed.pop(principal.session_id, None)

    def require_unended(self, principal: Principal, *, since: float) -> None:
        """For what is no stream, but has taken its time: raises what ended it.

        `since` is by `time.perf_counter`.
        """
        if not self._ended:
            return
        for its in (principal.session_id, principal.user_id):
            if self._ended.get(its, 0) > since:
                raise _ended()

    def _note_ends(self, *ended: UUID) -> None:
        for one in ended:
            self._ended.pop(one, None)
            self._ended[one] = time.perf_counter()
        while len(self._ended) > _CACHED:
            del self._ended[next(iter(self._ended))]

    def _trusted_for(self) -> float:
        return _SECONDS if self._bus.reliable else _SECONDS_UNHEARD

    async def _watch(self) -> None:
        """While others cannot be heard, ask the database whose streams must end."""
        while True:
            await asyncio.sleep(_SECONDS_UNHEARD)
            if self._bus.reliable or not self._followers:
                continue
            with suppress(AppError):
                await self._end_revoked()

    async def _end_revoked(self) -> None:
        followed = set(self._followers)
        async with self._database.unit_of_work(read_only=True) as session:
            living = await session.scalars(
                select(UserSession.id)
                .join(User, User.id == UserSession.user_id)
                .where(UserSession.id.in_(followed), alive(utcnow()))
            )
            keys = await session.scalars(
                live(ApiKey, utcnow())
                .where(ApiKey.id.in_(followed))
                .with_only_columns(ApiKey.id)
            )
        if gone := followed.difference(living, keys):
            self._forget_here(frozenset(gone))

    async def _load(self, claims: AccessClaims) -> Principal:
        statement = (
            select(UserSession.authenticated_at)
            .join(User, User.id == UserSession.user_id)
            .where(
                UserSession.id == claims.session_id,
                UserSession.user_id == claims.account_id,
                alive(utcnow()),
            )
        )
        async with self._database.unit_of_work(read_only=True) as session:
            authenticated_at = await session.scalar(statement)
            if authenticated_at is None:
                raise _ended()
            return Principal(
                user_id=claims.account_id,
                session_id=claims.session_id,
                authenticated_at=authenticated_at,
                must_enroll=await self._mfa.owes(session, claims.account_id, "user"),
            )


def alive(now: datetime) -> ColumnElement[bool]:
    """What makes a session count; the statement joins `User`."""
    return and_(
        UserSession.revoked_at.is_(None),
        UserSession.expires_at > now,
        User.status == "active",
    )


def _ended() -> UnauthenticatedError:
    return UnauthenticatedError("This session has ended: log in again.")
