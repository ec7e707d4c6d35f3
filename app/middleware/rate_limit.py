"""How often one may ask: by user where a valid token comes along, else by address.

The headers are those of draft-ietf-httpapi-ratelimit-headers up to its version 7, which
clients know: RateLimit-Limit, RateLimit-Remaining, RateLimit-Reset (in seconds).
"""

import math
import re
from collections.abc import Callable, Mapping
from uuid import UUID

from prometheus_client import Counter
from starlette.responses import Response
from starlette.types import Scope

from app.api.errors import problem
from app.core.exceptions import RateLimitedError, UnauthenticatedError
from app.core.keys import looks_like_key
from app.core.ratelimit import Limiter, Standing, network
from app.core.rates import Rate
from app.core.tokens import Tokens
from app.middleware.front import PROBES, Verdict, Visit
from app.services.authorization import Principal

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
        *,
        rates: Callable[[], Mapping[str, Rate | None]],
        limiter: Limiter,
        tokens: Tokens,
        known_key: Callable[[str, str | None], Principal | None],
    ) -> None:
        self._rates = rates
        self._limiter = limiter
        self._tokens = tokens
        self._known_key = known_key

    def enter(self, visit: Visit) -> Verdict:
        name = endpoint(visit.scope)
        rate = self._rates().get(name) if name else None
        if name is None or rate is None:
            return None
        return self._count(visit, name, rate)

    async def _count(self, visit: Visit, name: str, rate: Rate) -> Response | None:
        standing = await self._limiter.hit(rate, f"{name}:{self._who(visit, name)}")
        if not standing.allowed:
            REFUSED.labels(name).inc()
            error = _error(rate, standing)
            return problem(error.problem(), headers=error.headers)
        told = [
            (b"ratelimit-limit", b"%d" % rate.amount),
            (b"ratelimit-remaining", b"%d" % standing.remaining),
            (b"ratelimit-reset", b"%d" % math.ceil(standing.reset)),
        ]
        visit.at_start.append(lambda start: start["headers"].extend(told))
        return None

    def _who(self, visit: Visit, name: str) -> str:
        # What gives tokens counts addresses alone: a token would be one more try.
        if not name.startswith("auth.") and (user := self._user(visit)):
            return str(user)
        return network(visit.ip) if visit.ip else "unknown"

    def _user(self, visit: Visit) -> UUID | None:
        """Who a valid token names, or a key that was used a moment ago.

        Others count by address: who invents keys must not get a new window for each.
        """
        sent = sent_with(visit.headers)
        if looks_like_key(sent):
            known = self._known_key(sent, visit.ip)
            return known.user_id if known is not None else None
        try:
            return self._tokens.read_access(sent).account_id if sent else None
        except UnauthenticatedError:
            return None


def sent_with(headers: Mapping[bytes, bytes]) -> str:
    """The token or key that came along; empty for none."""
    scheme, _, token = headers.get(b"authorization", b"").partition(b" ")
    sent = token if scheme.lower() == b"bearer" else headers.get(b"x-api-key", b"")
    return sent.decode("latin-1")


def endpoint(scope: Scope) -> str | None:
    """The name of the limit that a request counts for; probes have none."""
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
