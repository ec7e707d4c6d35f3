"""Only addresses that may: those of the client, as `proxies` has found it (TRUST P6).

Those who watch the server are answered in any case: they come from other addresses
than people do, and learn nothing.
"""

from prometheus_client import Counter
from starlette.types import Scope

from app.api.errors import problem
from app.core.exceptions import ForbiddenError
from app.middleware.front import PROBES, Verdict, Visit
from app.services.ip_rule import IpRules

REFUSED = Counter(
    "workroom_addresses_refused", "Requests refused for their address", ["scope"]
)
_DESK = ("/api/v1/admin/", "/api/v1/staff/")
_CHANGED_BY_THE_DESK = "/api/v1/models/"
_READING = {"GET", "HEAD", "OPTIONS"}


class AddressRules:
    def __init__(self, rules: IpRules) -> None:
        self._rules = rules

    def enter(self, visit: Visit) -> Verdict:
        desk = _is_desk(visit.scope)
        if not self._rules.refuse(visit.ip, desk=desk):
            return None
        if visit.scope["path"] in PROBES:
            return None
        REFUSED.labels("desk" if desk else "service").inc()
        error = ForbiddenError(
            "Your address may not use this: ask an admin to allow it.",
            code="address_refused",
        )
        return problem(error.problem())


def _is_desk(scope: Scope) -> bool:
    path = f"{scope['path']}/"
    return path.startswith(_DESK) or (
        path.startswith(_CHANGED_BY_THE_DESK) and scope["method"] not in _READING
    )
