"""A request's id, its line in the access log, its time, and its count."""

import re
import time

import structlog
from prometheus_client import Counter, Histogram
from starlette.types import Message, Scope
from uuid_utils import uuid7

from app.core.config import LogSettings
from app.core.logging import about
from app.core.metrics import quick, quick_histogram
from app.middleware.front import Verdict, Visit

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
_seconds = quick_histogram(SECONDS)


class RequestContext:
    def __init__(self, settings: LogSettings) -> None:
        self._settings = settings
        # Bound once: the proxy looks its logger up for every line.
        self._log = _log.bind()

    def enter(self, visit: Visit) -> Verdict:
        seen = _Seen(self, visit)
        about.set({"request_id": seen.request_id})
        visit.at_start.append(seen.note_start)
        visit.at_end.append(seen.note_end)
        return None

    # For what was seen

    def mark(self, headers: list[tuple[bytes, bytes]], seen: "_Seen") -> None:
        request_id = seen.request_id.encode()
        headers.append((b"x-request-id", request_id))
        if seen.path.startswith("/v1/messages"):  # as Anthropic's SDK reads it
            headers.append((b"request-id", request_id))
        if self._settings.timing:
            timing = b"app;dur=%.1f" % (seen.first_byte * 1000)
            headers.append((b"server-timing", timing))

    def account(self, seen: "_Seen", scope: Scope, seconds: float) -> None:
        route = _pattern(scope)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        _requests(method, route, seen.status).inc()
        _seconds(method, route).observe(seen.first_byte)
        if self._settings.enabled and not seen.path.startswith(_QUIET):
            self._log.info(
                "request",
                method=method,
                path=seen.path,
                status=seen.status,
                ms=round(seconds * 1000, 1),
                client=scope["client"][0] if scope.get("client") else None,
            )


class _Seen:
    """What is told of a request. Its answer may never begin."""

    __slots__ = (
        "_begun", "_context", "_visit", "first_byte", "path", "request_id", "status",
    )  # fmt: skip

    def __init__(self, context: RequestContext, visit: Visit) -> None:
        self._begun = time.perf_counter()
        self._context = context
        self._visit = visit
        self.path: str = visit.scope["path"]
        self.request_id = _request_id(visit.headers.get(b"x-request-id"))
        self.status = 500
        self.first_byte = 0.0

    def note_start(self, start: Message) -> None:
        self.status = start["status"]
        self.first_byte = time.perf_counter() - self._begun
        self._context.mark(start["headers"], self)

    def note_end(self) -> None:
        seconds = time.perf_counter() - self._begun
        self._context.account(self, self._visit.scope, seconds)


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


def _request_id(given: bytes | None) -> str:
    """The caller's own, where it is harmless, so that logs can be joined."""
    if given is not None and _GIVEN_ID.fullmatch(given):
        return str(given, "ascii")
    return str(uuid7())
