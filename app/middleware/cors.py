"""CORS as Starlette decides it, with refused preflights counted and logged.

A refused preflight is what most "the API does not work from my page" reports come down
to, and neither side sees why: the log names the origin, and the setting that admits it.
"""

from typing import Any

import structlog
from prometheus_client import Counter
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.middleware.front import Verdict, Visit

REFUSED = Counter("workroom_cors_refused", "Preflight requests refused")
_FAILURE = 400
_log = structlog.get_logger()


class Cors:
    """`options` are those of Starlette's CORSMiddleware."""

    def __init__(self, **options: Any) -> None:
        self._rules = CORSMiddleware(_nowhere, **options)

    def enter(self, visit: Visit) -> Verdict:
        origin = visit.headers.get(b"origin")
        if origin is None:
            visit.at_start.append(_vary)
            return None
        method = visit.headers.get(b"access-control-request-method")
        if visit.scope["method"] == "OPTIONS" and method is not None:
            return self._preflight(Headers(scope=visit.scope))
        told = origin.decode("latin-1")
        visit.at_start.append(lambda start: self._tell(start, told))
        return None

    def _preflight(self, headers: Headers) -> Response:
        response = self._rules.preflight_response(headers)
        if response.status_code >= _FAILURE:
            REFUSED.inc()
            _log.warning(
                "preflight refused",
                origin=headers["origin"][:200],
                method=headers["access-control-request-method"][:20],
                reason=bytes(response.body).decode(),
                mend="CORS_ORIGINS, CORS_METHODS and CORS_HEADERS say who may call",
            )
        return response

    def _tell(self, start: Message, origin: str) -> None:
        """Whether a page of that origin may read the answer."""
        rules, headers = self._rules, MutableHeaders(scope=start)
        headers.update(rules.simple_headers)
        if rules.preflight_explicit_allow_origin and rules.is_allowed_origin(origin):
            rules.allow_explicit_origin(headers, origin)
        else:
            headers.add_vary_header("Origin")


def _vary(start: Message) -> None:
    """No page of another site asks; but caches must know that these get another."""
    start["headers"].append((b"vary", b"Origin"))


async def _nowhere(_scope: Scope, _receive: Receive, _send: Send) -> None:
    """What Starlette would have its middleware lead to."""
