"""Why a request is refused; each knows the answer that says so."""

import json
from typing import ClassVar


class AuthError(Exception):
    """Refused: `status`, `headers` and `body()` are the answer to send."""

    status: ClassVar[int] = 401
    code: ClassVar[str] = "unauthenticated"
    title: ClassVar[str] = "Authentication required"

    def __init__(self, detail: str, *, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after

    @property
    def headers(self) -> dict[str, str]:
        headers = {"Content-Type": "application/problem+json"}
        if self.status == 401:  # noqa: PLR2004 - HTTP's own number
            headers["WWW-Authenticate"] = "Bearer"
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return headers

    def body(self) -> bytes:
        """A problem document (RFC 9457)."""
        problem = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
        }
        return json.dumps(problem).encode()


class UnauthenticatedError(AuthError):
    """No credential, or one that is not (or no more) valid."""


class ForbiddenError(AuthError):
    """It is known who asks, and they may not."""

    status, code, title = 403, "forbidden", "Not allowed"


class LimitExceededError(AuthError):
    """Nothing is left of what the plan gives."""

    status, code, title = 429, "limit_exceeded", "Limit exceeded"


class UnavailableError(AuthError):
    """It cannot be found out who asks: this is not a log-out, try again."""

    status, code, title = 503, "auth_unavailable", "Authentication unavailable"

    def __init__(self, detail: str, *, retry_after: int = 5) -> None:
        super().__init__(detail, retry_after=retry_after)
