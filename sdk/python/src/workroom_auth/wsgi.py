"""Middleware for WSGI: Flask, Bottle, Pyramid and others."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from workroom_auth import tokens
from workroom_auth.client import WorkroomAuth
from workroom_auth.errors import AuthError
from workroom_auth.paths import public_paths

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

IDENTITY = "workroom.identity"


class AuthMiddleware:
    """Lets in who is logged in, as `environ["workroom.identity"]`."""

    def __init__(
        self, app: WSGIApplication, auth: WorkroomAuth, *, public: Collection[str] = ()
    ) -> None:
        self._app = app
        self._auth = auth
        self._is_public = public_paths(public)

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        try:
            if not self._is_public(environ.get("PATH_INFO") or "/"):
                environ[IDENTITY] = self._auth.check(
                    credential(environ), client_ip=environ.get("REMOTE_ADDR")
                )
            return self._app(environ, start_response)
        except AuthError as error:
            body = error.body()
            headers = {**error.headers, "Content-Length": str(len(body))}
            status = f"{error.status} {HTTPStatus(error.status).phrase}"
            start_response(status, list(headers.items()))
            return [body]


def credential(environ: dict[str, Any]) -> str | None:
    """The token or key in the headers of a request."""
    return tokens.sent(environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_X_API_KEY"))
