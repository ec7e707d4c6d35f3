"""Starlette's CORS, with refused preflights counted and logged.

A refused preflight is what most "the API does not work from my page" reports come down
to, and neither side sees why: the log names the origin, and the setting that admits it.
"""

import structlog
from prometheus_client import Counter
from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from app.middleware.at_start import at_start

REFUSED = Counter("workroom_cors_refused", "Preflight requests refused")
_FAILURE = 400
_log = structlog.get_logger()


def _vary(start: Message) -> None:
    """No page of another site asks; but caches must know that these get another."""
    start["headers"].append((b"vary", b"Origin"))


class Cors(CORSMiddleware):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            for name, _ in scope["headers"]:
                if name == b"origin":
                    break
            else:
                await self.app(scope, receive, at_start(scope, send, _vary))
                return
        await super().__call__(scope, receive, send)

    def preflight_response(self, request_headers: Headers) -> Response:
        response = super().preflight_response(request_headers)
        if response.status_code >= _FAILURE:
            REFUSED.inc()
            _log.warning(
                "preflight refused",
                origin=request_headers["origin"][:200],
                method=request_headers["access-control-request-method"][:20],
                reason=bytes(response.body).decode(),
                mend="CORS_ORIGINS, CORS_METHODS and CORS_HEADERS say who may call",
            )
        return response
