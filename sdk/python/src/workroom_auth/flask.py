"""For Flask: `protect(app, auth)`, and in views `identity()` and `@require(...)`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import wraps
from typing import Any, TypeVar, cast

from flask import Flask, Response, g, request

from workroom_auth.client import WorkroomAuth
from workroom_auth.errors import AuthError, UnauthenticatedError
from workroom_auth.identity import Identity
from workroom_auth.paths import public_paths
from workroom_auth.wsgi import credential

View = TypeVar("View", bound=Callable[..., Any])


def protect(app: Flask, auth: WorkroomAuth, *, public: Collection[str] = ()) -> None:
    """Have every request to `app` need a login, but those to `public` paths."""
    is_public = public_paths(public)

    def let_in() -> None:
        if not is_public(request.path):
            g.identity = auth.check(
                credential(request.environ), client_ip=request.remote_addr
            )

    def refuse(error: AuthError) -> Response:
        return Response(error.body(), error.status, error.headers)

    app.before_request(let_in)
    app.register_error_handler(AuthError, refuse)


def identity() -> Identity:
    """Who sent this request."""
    if "identity" not in g:
        raise UnauthenticatedError("This path is public: nobody has logged in.")
    return cast("Identity", g.identity)


def require(
    *scopes: str, plans: tuple[str, ...] = (), left: tuple[str, ...] = ()
) -> Callable[[View], View]:
    """Decorates a view that not everybody may see; see `Identity.require`."""

    def decorate(view: View) -> View:
        @wraps(view)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            identity().require(*scopes, plans=plans, left=left)
            return view(*args, **kwargs)

        return cast("View", guarded)

    return decorate
