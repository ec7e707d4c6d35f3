"""Who a request at the desk is from, without asking the database each time."""

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import ColumnElement, and_, select

from app.core.bus import Bus
from app.core.cache import Cache
from app.core.database import Database, utcnow
from app.core.exceptions import ForbiddenError, UnauthenticatedError
from app.core.tokens import AccessClaims
from app.models import Admin, DeskAccount, DeskSession, SupportStaff
from app.schemas.desk import Kind, Permission
from app.services.audit import Actor
from app.services.mfa import Mfa

_CACHED = 1000
_SECONDS = 60
# While others cannot be heard, their revocations are seen only by asking again.
_SECONDS_UNHEARD = 0.5
_FORGET = "desk.forget"


@dataclass(frozen=True, slots=True)
class DeskUser:
    """Who is asking: an admin or a member of the staff, by way of a session."""

    kind: Kind
    id: UUID
    session_id: UUID
    level: int
    """Of staff, 1 to 3; admins have permissions in its place, and 0."""
    permissions: frozenset[str]
    authenticated_at: datetime
    """When the session began: it is not renewed by another login."""
    must_enroll: bool = False
    """Whether a second factor is asked for that was not there when this was read."""

    def actor(self, ip: str | None) -> Actor:
        """Who the audit says it was."""
        return Actor(self.kind, self.id, ip)

    def require(self, permission: Permission) -> None:
        """Raises ForbiddenError for an admin who has not been given it."""
        if permission not in self.permissions:
            raise ForbiddenError(
                f"This needs the permission `{permission}`: ask an admin who may give "
                "it.",
                code="permission_required",
            )

    def require_level(self, level: int) -> None:
        """Raises ForbiddenError for staff below it."""
        if self.level < level:
            raise ForbiddenError(
                f"This needs support staff of level {level}.", code="level_required"
            )


class DeskPrincipals:
    """The principals of live sessions at the desk."""

    def __init__(self, database: Database, bus: Bus, mfa: Mfa) -> None:
        self._database = database
        self._mfa = mfa
        self._mfa.on_removal(self.forget)
        self._bus = bus
        self._cache: Cache[UUID, DeskUser] = Cache(size=_CACHED, ttl=self._trusted_for)

    async def of(self, claims: AccessClaims, kind: Kind) -> DeskUser:
        """Raises UnauthenticatedError where the session or its account is no more."""
        sid = claims.session_id
        found = await self._cache.get(sid, lambda: self._load(claims, kind))
        if (found.id, found.kind) != (claims.account_id, kind):
            raise _ended()  # it was loaded for another token
        return found

    def forget(self, account_id: UUID) -> None:
        """Make felt that an account's sessions ended, or that its rights changed."""
        self._forget_here(account_id)
        self._bus.say(_FORGET, account_id.bytes)

    async def open(self) -> None:
        await self._bus.listen(_FORGET, self._hear)
        self._bus.on_gap(lambda: self._cache.drop(lambda _: True))

    async def close(self) -> None:
        await self._bus.unlisten(_FORGET, self._hear)

    def _hear(self, account_id: bytes) -> None:
        self._forget_here(UUID(bytes=account_id))

    def _forget_here(self, account_id: UUID) -> None:
        self._cache.drop(lambda desk_user: desk_user.id == account_id)

    def _trusted_for(self) -> float:
        return _SECONDS if self._bus.reliable else _SECONDS_UNHEARD

    async def _load(self, claims: AccessClaims, kind: Kind) -> DeskUser:
        model = model_of(kind)
        statement = (
            select(model, DeskSession.created_at)
            .join(DeskSession, owner_column(kind) == model.id)
            .where(
                DeskSession.id == claims.session_id,
                model.id == claims.account_id,
                alive(model, utcnow()),
            )
        )
        async with self._database.unit_of_work(read_only=True) as session:
            found = (await session.execute(statement)).one_or_none()
            if found is None:
                raise _ended()
            account: DeskAccount = found[0]
            level = account.level if isinstance(account, SupportStaff) else 0
            return DeskUser(
                kind=kind,
                id=account.id,
                session_id=claims.session_id,
                level=level,
                permissions=frozenset(
                    account.permissions if isinstance(account, Admin) else []
                ),
                authenticated_at=found[1],
                must_enroll=await self._mfa.owes(session, account.id, kind, level),
            )


def model_of(kind: Kind) -> type[DeskAccount]:
    return Admin if kind == "admin" else SupportStaff


def kind_of(model: type[DeskAccount]) -> Kind:
    return "admin" if model is Admin else "staff"


def owner_column(kind: Kind) -> ColumnElement[UUID | None]:
    """The column of `DeskSession` that tells whose it is."""
    column = DeskSession.admin_id if kind == "admin" else DeskSession.staff_id
    return column.expression


def alive(model: type[DeskAccount], now: datetime) -> ColumnElement[bool]:
    """What makes a session count; the statement joins `model`."""
    return and_(
        DeskSession.revoked_at.is_(None),
        DeskSession.expires_at > now,
        model.status == "active",
    )


def _ended() -> UnauthenticatedError:
    return UnauthenticatedError("This session has ended: log in again.")
