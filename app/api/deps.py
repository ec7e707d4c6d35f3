"""What endpoints ask for, each under one name."""

from collections.abc import AsyncIterator
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query, Request
from fastapi.security import OAuth2PasswordBearer

from app.core.database import Session
from app.core.exceptions import UnauthenticatedError
from app.integrations.llm.registry import Providers
from app.services import idempotency
from app.services.auth import Auth, Client
from app.services.authorization import Principal
from app.services.chat.turns import Turns
from app.services.runtime import Runtime

_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


def get_runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


RuntimeDep = Annotated[Runtime, Depends(get_runtime)]


async def get_session(request: Request, runtime: RuntimeDep) -> AsyncIterator[Session]:
    read_only = request.method in _SAFE_METHODS
    async with runtime.database.unit_of_work(read_only=read_only) as session:
        if not read_only:
            await idempotency.take(session)
        yield session


# "function": it commits before the answer goes out, so a failed commit is no 200.
SessionDep = Annotated[Session, Depends(get_session, scope="function")]

_bearer = OAuth2PasswordBearer(tokenUrl="/api/v1/auth/token", auto_error=False)


async def get_principal(
    runtime: RuntimeDep, token: Annotated[str | None, Depends(_bearer)]
) -> Principal:
    if token is None:
        raise UnauthenticatedError("Send an access token: Authorization: Bearer ...")
    return await runtime.principals.of(runtime.tokens.read_access(token))


async def principal_of(request: Request) -> Principal:
    """The same, where no endpoint asks for it."""
    return await get_principal(get_runtime(request), await _bearer(request))


CurrentUser = Annotated[Principal, Depends(get_principal)]


def get_client(request: Request) -> Client:
    return Client(
        ip=request.client.host if request.client else None,
        user_agent=request.headers.get("user-agent"),
    )


ClientDep = Annotated[Client, Depends(get_client)]


def get_auth(runtime: RuntimeDep) -> Auth:
    return runtime.auth


AuthDep = Annotated[Auth, Depends(get_auth)]


def get_turns(runtime: RuntimeDep) -> Turns:
    return runtime.turns


TurnsDep = Annotated[Turns, Depends(get_turns)]


def get_providers(runtime: RuntimeDep) -> Providers:
    return runtime.providers


ProvidersDep = Annotated[Providers, Depends(get_providers)]


class PageQuery:
    """`limit` rows after `cursor`, or after `offset` rows."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
        offset: Annotated[int, Query(ge=0, le=10_000)] = 0,
    ) -> None:
        self.limit = limit
        self.cursor = cursor
        self.offset = offset


PageDep = Annotated[PageQuery, Depends()]


class BranchQuery:
    """`limit` messages up from `leaf` (by default the chat's newest), or `cursor`."""

    def __init__(
        self,
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
        leaf: UUID | None = None,
    ) -> None:
        self.limit = limit
        self.cursor = cursor
        self.leaf = leaf


BranchDep = Annotated[BranchQuery, Depends()]
