"""How often one may ask: by user where a valid token comes along, else by address.

The headers are those of draft-ietf-httpapi-ratelimit-headers up to its version 7, which
clients know: RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset (in seconds).
"""

import math
import re
from collections.abc import Callable, Mapping
from uuid import UUID

from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import problem
from app.core.exceptions import RateLimitedError, UnauthenticatedError
from app.core.keys import looks_like_key
from app.core.ratelimit import Limiter, Standing, network
from app.core.rates import Rate
from app.core.tokens import Tokens
from app.middleware.admission import PROBES
from app.middleware.at_start import at_start

HEADERS = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
REFUSED = Counter(
    "workroom_rate_limited", "Requests refused for their rate", ["endpoint"]
)

_POSTS = {
    "/api/v1/auth/login": "auth.login",
    "/api/v1/auth/token": "auth.login",
    "/api/v1/admin/auth/login": "auth.login",
    "/api/v1/staff/auth/login": "auth.login",
    "/api/v1/auth/register": "auth.register",
    "/api/v1/auth/refresh": "auth.refresh",
    "/api/v1/admin/auth/refresh": "auth.refresh",
    "/api/v1/staff/auth/refresh": "auth.refresh",
    "/api/v1/auth/verify-email": "auth.link",
    "/api/v1/auth/resend-verification": "auth.link",
    "/api/v1/auth/forgot-password": "auth.link",
    "/api/v1/auth/reset-password": "auth.link",
    "/api/v1/auth/change-email": "auth.link",
    "/api/v1/apikeys/leaked": "auth.leaked",
}
_SENDS = re.compile(r"/api/v1/(?:chats/[^/]+/messages|messages/[^/]+/continue)")
_PROVIDERS = ("/api/v1/auth/google/", "/api/v1/auth/oidc/")


class RateLimit:
    def __init__(
        self,
        app: ASGIApp,
        *,
        rates: Callable[[], Mapping[str, Rate | None]],
        limiter: Limiter,
        tokens: Tokens,
        owner_of_key: Callable[[str], UUID | None],
    ) -> None:
        self._app = app
        self._rates = rates
        self._limiter = limiter
        self._tokens = tokens
        self._owner_of_key = owner_of_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        name = endpoint(scope)
        rate = self._rates().get(name) if name else None
        if name is None or rate is None:
            await self._app(scope, receive, send)
            return
        standing = await self._limiter.hit(rate, f"{name}:{self._who(scope, name)}")
        if not standing.allowed:
            REFUSED.labels(name).inc()
            error = _error(rate, standing)
            answer = problem(error.problem(), headers=error.headers)
            await answer(scope, receive, send)
            return
        told = [
            (b"ratelimit-limit", b"%d" % rate.amount),
            (b"ratelimit-remaining", b"%d" % standing.remaining),
            (b"ratelimit-reset", b"%d" % math.ceil(standing.reset)),
        ]
        await self._app(
            scope,
            receive,
            at_start(scope, send, lambda start: start["headers"].extend(told)),
        )

    def _who(self, scope: Scope, name: str) -> str:
        # What gives tokens counts addresses alone: a token would be one more try.
        if not name.startswith("auth.") and (user := self._user(scope)):
            return str(user)
        client = scope.get("client")
        return network(client[0]) if client else "unknown"

    def _user(self, scope: Scope) -> UUID | None:
        """Who a valid token names, or a key that was used a moment ago.

        Others count by address: who invents keys must not get a new window for each.
        """
        headers = Headers(scope=scope)
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = token if scheme.lower() == "bearer" else headers.get("x-api-key", "")
        if looks_like_key(sent):
            return self._owner_of_key(sent)
        try:
            return self._tokens.read_access(sent).account_id if token else None
        except UnauthenticatedError:
            return None


def endpoint(scope: Scope) -> str | None:
    """The name of the limit that a request counts for; probes have none."""
    if scope["type"] != "http":
        return None
    path: str = scope["path"]
    if path in PROBES:
        return None
    if path.startswith(_PROVIDERS):
        return "auth.provider"
    if scope["method"] == "POST":
        if path in _POSTS:
            return _POSTS[path]
        if _SENDS.fullmatch(path):
            return "chats.send"
    return "default"


def _error(rate: Rate, standing: Standing) -> RateLimitedError:
    seconds = max(1, math.ceil(standing.reset))
    return RateLimitedError(
        f"At most {rate.amount} requests of this kind in {rate.seconds} s: try again "
        f"in {seconds} s.",
        headers={
            "Retry-After": str(seconds),
            "RateLimit-Limit": str(rate.amount),
            "RateLimit-Remaining": "0",
            "RateLimit-Reset": str(seconds),
        },
    )
