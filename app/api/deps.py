"""What endpoints ask for, each under one name.

All are coroutines, even where they await nothing: FastAPI sends a plain function to a
thread, which costs more than the rest of a request.
"""

from collections.abc import AsyncIterator
from typing import Annotated, Protocol, runtime_checkable
from uuid import UUID

from fastapi import Depends, Query, Request
from fastapi.security import (
    APIKeyHeader,
    HTTPAuthorizationCredentials,
    HTTPBearer,
    OAuth2PasswordBearer,
)
from pydantic import BaseModel, ConfigDict, Field

from app.api.scopes import check_scope
from app.core.database import Database, Session
from app.core.exceptions import UnauthenticatedError
from app.core.keys import looks_like_key
from app.integrations.llm.routing import Router
from app.schemas.context import ContextQuery
from app.schemas.desk import Kind, Permission, UserStatus
from app.schemas.user import Email
from app.services import idempotency
from app.services.auth import Auth, Client
from app.services.authorization import Principal, require_fresh
from app.services.chat.search_index import SearchIndex
from app.services.chat.turns import Turns
from app.services.desk.auth import AUDIENCES
from app.services.desk.principal import DeskUser
from app.services.keyring import Grant
from app.services.knowledge.retrieval import Retrieval
from app.services.link.accounts import Accounts
from app.services.runtime import Runtime

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


async def get_runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]


async def get_database(runtime: RuntimeDep) -> Database:
    return runtime.database


DatabaseDep = Annotated[Database, Depends(get_database)]
"""For the reads that go without a session."""


async def get_session(request: Request, runtime: RuntimeDep) -> AsyncIterator[Session]:
    read_only = request.method in _SAFE_METHODS
    async with runtime.database.unit_of_work(read_only=read_only) as session:
        if not read_only:
            await idempotency.take(session)
        yield session


# "function": it commits before the answer goes out, so a failed commit is no 200.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]

read_bearer = OAuth2PasswordBearer(tokenUrl="/api/v1/auth/token", auto_error=False)
read_key_header = APIKeyHeader(name="x-api-key", auto_error=False)
Bearer = Annotated[str | None, Depends(read_bearer)]
KeyHeader = Annotated[str | None, Depends(read_key_header)]


async def get_enrolling_principal(
    request: Request, runtime: RuntimeDep, bearer: Bearer, key: KeyHeader
) -> Principal:
    """Who is logged in, or whose API key it is where its scopes allow the request."""
    sent = bearer or key
    if sent is None:
        raise UnauthenticatedError("Send an access token: Authorization: Bearer ...")
    if bearer and not looks_like_key(bearer):
        return await runtime.principals.of(runtime.tokens.read_access(bearer))
    ip = request.client.host if request.client else None
    principal = await runtime.principals.of_key(sent, ip=ip)
    check_scope(principal, request.method, request.scope["path"])
    return principal


EnrollingUser = Annotated[Principal, Depends(get_enrolling_principal)]
"""Also one who must enroll a second factor before anything else is allowed."""


async def get_principal(runtime: RuntimeDep, principal: EnrollingUser) -> Principal:
    if principal.must_enroll:
        await runtime.mfa.require(runtime.database, principal.user_id)
    return principal


async def principal_of(request: Request) -> Principal:
    """The same, where no endpoint asks for it."""
    runtime = await get_runtime(request)
    principal = await get_enrolling_principal(
        request, runtime, await read_bearer(request), await read_key_header(request)
    )
    return await get_principal(runtime, principal)


CurrentUser = Annotated[Principal, Depends(get_principal)]


async def get_logged_in(request: Request, runtime: RuntimeDep) -> UUID | None:
    bearer = await read_bearer(request)
    if bearer is None or looks_like_key(bearer):
        return None
    try:
        principal = await runtime.principals.of(runtime.tokens.read_access(bearer))
    except UnauthenticatedError:
        return None
    return principal.user_id


LoggedIn = Annotated[UUID | None, Depends(get_logged_in)]
"""Whose session it is, if any: for what goes without one, too."""


async def get_fresh_enrolling_principal(user: EnrollingUser) -> Principal:
    """Who has just logged in: what an account hangs on is for no session left open."""
    require_fresh(user.authenticated_at)
    return user


FreshEnrollingUser = Annotated[Principal, Depends(get_fresh_enrolling_principal)]


async def get_fresh_principal(
    runtime: RuntimeDep, user: FreshEnrollingUser
) -> Principal:
    return await get_principal(runtime, user)


FreshUser = Annotated[Principal, Depends(get_fresh_principal)]


_desk_bearer = HTTPBearer(
    scheme_name="DeskBearer",
    description="An access token of /admin/auth/login or /staff/auth/login.",
    auto_error=False,
)
DeskToken = Annotated[HTTPAuthorizationCredentials | None, Depends(_desk_bearer)]


async def get_enrolling_admin(runtime: RuntimeDep, token: DeskToken) -> DeskUser:
    return await _at_the_desk(runtime, token, "admin")


async def get_enrolling_staff(runtime: RuntimeDep, token: DeskToken) -> DeskUser:
    return await _at_the_desk(runtime, token, "staff")


EnrollingAdmin = Annotated[DeskUser, Depends(get_enrolling_admin)]
EnrollingStaff = Annotated[DeskUser, Depends(get_enrolling_staff)]


async def get_fresh_enrolling_admin(admin: EnrollingAdmin) -> DeskUser:
    require_fresh(admin.authenticated_at)
    return admin


async def get_fresh_enrolling_staff(staff: EnrollingStaff) -> DeskUser:
    require_fresh(staff.authenticated_at)
    return staff


FreshEnrollingAdmin = Annotated[DeskUser, Depends(get_fresh_enrolling_admin)]
FreshEnrollingStaff = Annotated[DeskUser, Depends(get_fresh_enrolling_staff)]


async def get_admin(runtime: RuntimeDep, admin: EnrollingAdmin) -> DeskUser:
    return await _enrolled(runtime, admin)


async def get_staff(runtime: RuntimeDep, staff: EnrollingStaff) -> DeskUser:
    return await _enrolled(runtime, staff)


async def _enrolled(runtime: Runtime, desk_user: DeskUser) -> DeskUser:
    if desk_user.must_enroll:
        await runtime.mfa.require(runtime.database, desk_user.id)
    return desk_user


async def _at_the_desk(runtime: Runtime, token: DeskToken, kind: Kind) -> DeskUser:
    if token is None:
        raise UnauthenticatedError(
            f"Send an access token of /{kind}/auth/login: Authorization: Bearer ..."
        )
    claims = runtime.tokens.read_access(token.credentials, AUDIENCES[kind])
    return await runtime.desk_principals.of(claims, kind)


AnyAdmin = Annotated[DeskUser, Depends(get_admin)]
AnyStaff = Annotated[DeskUser, Depends(get_staff)]


@runtime_checkable
class Check(Protocol):
    """A dependency that can also be asked where no endpoint does."""

    async def of(self, request: Request) -> DeskUser | Grant:
        """Who may call it; raises as the dependency does."""


class AdminWith:
    """Use as `admin: Annotated[DeskUser, Depends(AdminWith("plans"))]`.

    A `fresh` one has just logged in.
    """

    def __init__(self, permission: Permission, *, fresh: bool = False) -> None:
        self._permission = permission
        self._fresh = fresh

    async def __call__(self, admin: AnyAdmin) -> DeskUser:
        admin.require(self._permission)
        if self._fresh:
            require_fresh(admin.authenticated_at)
        return admin

    async def of(self, request: Request) -> DeskUser:
        runtime = await get_runtime(request)
        admin = await get_enrolling_admin(runtime, await _desk_bearer(request))
        return await self(await get_admin(runtime, admin))


class StaffOf:
    """The same for support staff of this level or above."""

    def __init__(self, level: int) -> None:
        self._level = level

    async def __call__(self, staff: AnyStaff) -> DeskUser:
        staff.require_level(self._level)
        return staff

    async def of(self, request: Request) -> DeskUser:
        runtime = await get_runtime(request)
        staff = await get_enrolling_staff(runtime, await _desk_bearer(request))
        return await self(await get_staff(runtime, staff))


async def get_client(request: Request) -> Client:
    return Client(
        ip=request.client.host if request.client else None,
        user_agent=request.headers.get("user-agent"),
    )


ClientDep = Annotated[Client, Depends(get_client)]


async def get_auth(runtime: RuntimeDep) -> Auth:
    return runtime.auth


AuthDep = Annotated[Auth, Depends(get_auth)]


async def get_accounts(runtime: RuntimeDep) -> Accounts:
    return runtime.linked_accounts


AccountsDep = Annotated[Accounts, Depends(get_accounts)]


async def get_search_index(runtime: RuntimeDep) -> SearchIndex:
    return runtime.search_index


SearchIndexDep = Annotated[SearchIndex, Depends(get_search_index)]


async def get_turns(runtime: RuntimeDep) -> Turns:
    return runtime.turns


TurnsDep = Annotated[Turns, Depends(get_turns)]


async def get_retrieval(runtime: RuntimeDep) -> Retrieval:
    return runtime.retrieval


RetrievalDep = Annotated[Retrieval, Depends(get_retrieval)]


async def get_router(runtime: RuntimeDep) -> Router:
    return runtime.router


RouterDep = Annotated[Router, Depends(get_router)]


class PageQuery(BaseModel):
    """`limit` rows after `cursor`, or after `offset` rows."""

    model_config = ConfigDict(frozen=True)

    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, max_length=200)
    offset: int = Field(0, ge=0, le=10_000)


PageDep = Annotated[PageQuery, Query()]


class UserFilter(BaseModel):
    """Which users a list shows."""

    q: str | None = Field(
        None,
        min_length=1,
        max_length=254,
        description="The beginning of an e-mail address or a username. The first 1000 "
        "that begin so, by the alphabet, are looked at.",
    )
    status: UserStatus | None = None


UserFilterDep = Annotated[UserFilter, Query()]


class DeletedUsersQuery(PageQuery):
    """The same, or all that had one address."""

    email: Email | None = None


DeletedUsersDep = Annotated[DeletedUsersQuery, Query()]


class BranchQuery(BaseModel):
    """`limit` messages up from `leaf` (by default the chat's newest), or `cursor`."""

    model_config = ConfigDict(frozen=True)

    limit: int = Field(20, ge=1, le=100)
    cursor: str | None = Field(None, max_length=200)
    leaf: UUID | None = None


BranchDep = Annotated[BranchQuery, Query()]

AskedDep = Annotated[ContextQuery, Query()]
