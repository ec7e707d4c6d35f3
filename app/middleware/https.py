"""Only by TLS, where a proxy ends it: what comes without is led there."""

from http import HTTPStatus

from starlette.datastructures import URL
from starlette.responses import RedirectResponse

from app.middleware.front import Verdict, Visit

_USUAL_PORTS = (80, 443)


class HttpsOnly:
    """It leads to wherever the host header says, so `Hosts` stands before it."""

    def enter(self, visit: Visit) -> Verdict:
        if visit.scope["scheme"] == "https":
            return None
        url = URL(scope=visit.scope)
        usual = url.port in _USUAL_PORTS
        secure = url.replace(
            scheme="https", netloc=url.hostname if usual else url.netloc
        )
        return RedirectResponse(secure, HTTPStatus.TEMPORARY_REDIRECT)
