"""Only addresses that may: those of the client, as `proxies` has found it (TRUST P6).

Those who watch the server are answered in any case: they come from other addresses
than people do, and learn nothing.
"""

from prometheus_client import Counter
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import problem
from app.core.exceptions import ForbiddenError
from app.middleware.admission import PROBES
from app.services.ip_rule import IpRules

REFUSED = Counter(
    "workroom_addresses_refused", "Requests refused for their address", ["scope"]
)
_DESK = ("/api/v1/admin/", "/api/v1/staff/")
_CHANGED_BY_THE_DESK = "/api/v1/models/"
_READING = {"GET", "HEAD", "OPTIONS"}


class AddressRules:
    def __init__(self, app: ASGIApp, *, rules: IpRules) -> None:
        self._app = app
        self._rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        client = scope.get("client")
        desk = _is_desk(scope)
        if not self._rules.refuse(client[0] if client else None, desk=desk):
            await self._app(scope, receive, send)
            return
        REFUSED.labels("desk" if desk else "service").inc()
        error = ForbiddenError(
            "Your address may not use this: ask an admin to allow it.",
            code="address_refused",
        )
        await problem(error.problem())(scope, receive, send)


def _is_desk(scope: Scope) -> bool:
    path = f"{scope['path']}/"
    return path.startswith(_DESK) or (
        path.startswith(_CHANGED_BY_THE_DESK) and scope["method"] not in _READING
    )
