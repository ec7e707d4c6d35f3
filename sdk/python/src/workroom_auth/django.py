"""Middleware for Django, for its sync and its async views.

Put `workroom_auth.django.WorkroomMiddleware` into MIDDLEWARE, and into the settings:

    WORKROOM_AUTH = {
        "url": "https://workroom.example",
        "service_key": os.environ["WORKROOM_SERVICE_KEY"],
        "public": ["/health"],
    }

The other options are those of `WorkroomAuth`. `request.identity` is who asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache, wraps
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase

from workroom_auth import tokens
from workroom_auth.client import WorkroomAuth
from workroom_auth.errors import AuthError
from workroom_auth.identity import Identity
from workroom_auth.paths import public_paths

View = TypeVar("View", bound=Callable[..., Any])


@cache
def auth() -> WorkroomAuth:
    """The one client of this process, made of the settings."""
    options = {k: v for k, v in settings.WORKROOM_AUTH.items() if k != "public"}
    return WorkroomAuth(**options)


class WorkroomMiddleware:
    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self._get_response = get_response
        self._is_public = public_paths(settings.WORKROOM_AUTH.get("public", ()))
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(
        self, request: HttpRequest
    ) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self._is_async:
            return self._call_async(request)
        try:
            if not self._is_public(request.path):
                _let_in(request, auth().check(**_sent(request)))
        except AuthError as error:
            return _refusal(error)
        return cast("HttpResponseBase", self._get_response(request))

    async def _call_async(self, request: HttpRequest) -> HttpResponseBase:
        try:
            if not self._is_public(request.path):
                _let_in(request, await auth().acheck(**_sent(request)))
        except AuthError as error:
            return _refusal(error)
        return cast("HttpResponseBase", await self._get_response(request))

    def process_exception(
        self, _request: HttpRequest, error: Exception
    ) -> HttpResponse | None:
        """What a view raises by `request.identity.require(...)`."""
        return _refusal(error) if isinstance(error, AuthError) else None


def require(
    *scopes: str, plans: tuple[str, ...] = (), left: tuple[str, ...] = ()
) -> Callable[[View], View]:
    """Decorates a view that not everybody may see; see `Identity.require`."""

    def decorate(view: View) -> View:
        def check(request: HttpRequest) -> None:
            identity: Identity = request.identity
            identity.require(*scopes, plans=plans, left=left)

        @wraps(view)
        def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            check(request)
            return view(request, *args, **kwargs)

        @wraps(view)
        async def guarded_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            check(request)
            return await view(request, *args, **kwargs)

        return cast("View", guarded_async if iscoroutinefunction(view) else guarded)

    return decorate


def _sent(request: HttpRequest) -> dict[str, Any]:
    headers = request.headers
    return {
        "token": tokens.sent(headers.get("Authorization"), headers.get("X-API-Key")),
        "client_ip": request.META.get("REMOTE_ADDR"),
    }


def _let_in(request: HttpRequest, identity: Identity) -> None:
    request.identity = identity


def _refusal(error: AuthError) -> HttpResponse:
    return HttpResponse(error.body(), status=error.status, headers=error.headers)
