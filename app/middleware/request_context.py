"""A request's id, its line in the access log, its time, and its count."""

import re
import time
from functools import cache
from typing import Any

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uuid_utils import uuid7

from app.core.config import LogSettings
from app.core.metrics import quick
from app.middleware.at_start import at_start

REQUESTS = Counter(
    "workroom_http_requests", "Requests answered", ["method", "route", "status"]
)
SECONDS = Histogram(
    "workroom_http_request_seconds",
    "Time to the first byte of the answer",
    ["method", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)

_GIVEN_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")
_METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"}
_QUIET = ("/health", "/metrics")
_log = structlog.get_logger("access")

# Both are few: routes, times methods, times statuses.
_requests = quick(REQUESTS)
_seconds = cache(SECONDS.labels)


class RequestContext:
    def __init__(self, app: ASGIApp, settings: LogSettings) -> None:
        self._app = app
        self._settings = settings
        # Bound once: the proxy looks its logger up for every line.
        self._log = _log.bind()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        request_id = _request_id(scope)
        status = 500
        first_byte = 0.0

        def note(start: Message) -> None:
            nonlocal status, first_byte
            status = start["status"]
            first_byte = time.perf_counter() - begun
            headers = start["headers"]
            headers.append((b"x-request-id", request_id.encode()))
            if scope["path"].startswith("/v1/messages"):  # as Anthropic's SDK reads it
                headers.append((b"request-id", request_id.encode()))
            if self._settings.timing:
                timing = b"app;dur=%.1f" % (first_byte * 1000)
                headers.append((b"server-timing", timing))

        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, at_start(scope, send, note))
        finally:
            self._account(scope, status, first_byte, time.perf_counter() - begun)

    def _account(
        self, scope: Scope, status: int, first_byte: float, seconds: float
    ) -> None:
        route = _pattern(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        _requests(method, route, status).inc()
        _seconds(method, route).observe(first_byte)
        if self._settings.enabled and not scope["path"].startswith(_QUIET):
            self._log.info(
                "request",
                method=method,
                path=scope["path"],
                status=status,
                ms=round(seconds * 1000, 1),
                client=scope["client"][0] if scope.get("client") else None,
            )


def _pattern(scope: Scope) -> str:
    """The route's pattern, not the path: ids would make a series for each."""
    if "way" in scope:  # a short cut knows it whole
        return str(scope["way"].path)
    route = scope.get("route")
    if route is None:
        return "none"
    # A route knows its own path only; before it stand the prefixes of its routers.
    own = route.path_format.format(**scope["path_params"])
    prefix, found, _ = str(scope["path"]).rpartition(own)
    return f"{prefix if found else ''}{route.path}"


def _request_id(scope: Scope) -> str:
    """The caller's own, where it is harmless, so that logs can be joined."""
    headers: list[tuple[bytes, Any]] = scope["headers"]
    for name, value in headers:
        if name == b"x-request-id" and _GIVEN_ID.fullmatch(value):
            return str(value, "ascii")
    return str(uuid7())
