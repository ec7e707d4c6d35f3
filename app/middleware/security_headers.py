"""Headers that make browsers careful with whatever we answer."""

from starlette.types import Message

from app.middleware.front import Verdict, Visit

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
_POLICY = (
    b"default-src 'none'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    b"form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
_CSP = (b"content-security-policy", _POLICY)
_HSTS = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
_DOCS = ("/docs", "/docs/oauth2-redirect", "/redoc")


class SecurityHeaders:
    def __init__(self, *, hsts: bool) -> None:
        self._headers = [*_ALWAYS, *([_HSTS] if hsts else [])]

    def enter(self, visit: Visit) -> Verdict:
        # Swagger and ReDoc come from a content network; production has them off.
        docs = visit.scope["path"] in _DOCS
        visit.at_start.append(self._add if docs else self._add_with_policy)
        return None

    def _add(self, start: Message) -> None:
        start["headers"].extend(self._headers)

    def _add_with_policy(self, start: Message) -> None:
        headers = start["headers"]
        for name, _ in headers:
            if name == _CSP[0]:  # a page that needs more than nothing brings its own
                break
        else:
            headers.append(_CSP)
        headers.extend(self._headers)
