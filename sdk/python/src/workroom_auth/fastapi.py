"""A dependency for FastAPI: who asks, as an argument of the endpoint."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, HTTPException, Request
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from workroom_auth.asgi import client_ip
from workroom_auth.client import WorkroomAuth
from workroom_auth.errors import AuthError
from workroom_auth.identity import Identity

_bearer = HTTPBearer(auto_error=False, description="An access token, or an API key.")
_key = APIKeyHeader(name="x-api-key", auto_error=False, description="An API key.")

Bearer = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
Key = Annotated[str | None, Depends(_key)]


def require(
    auth: WorkroomAuth,
    *scopes: str,
    plans: tuple[str, ...] = (),
    left: tuple[str, ...] = (),
) -> Callable[..., Awaitable[Identity]]:
    """Use as `me: Annotated[Identity, Depends(require(auth, "ext:reports"))]`.

    Every one of `scopes` is needed, one of `plans`, and something of each limit that
    `left` names, such as `conversations`.
    """

    async def identity(request: Request, bearer: Bearer, key: Key) -> Identity:
        token = key
        if request.headers.get("authorization"):
            token = bearer.credentials if bearer else None
        try:
            found = await auth.acheck(token, client_ip=client_ip(request.scope))
            return found.require(*scopes, plans=plans, left=left)
        except AuthError as error:
            headers = dict(error.headers)
            headers.pop("Content-Type")
            raise HTTPException(error.status, error.detail, headers) from error

    return identity
