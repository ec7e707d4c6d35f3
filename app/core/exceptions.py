"""The one family of domain errors.

Services raise them; `api/errors.py` alone renders them, as RFC 9457 problem JSON.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, TypedDict


class FieldError(TypedDict):
    """One wrong field: `path` in dotted form from the request's root."""

    path: str
    message: str


class AppError(Exception):
    """A failure with a stable `code`, an HTTP `status` and a sentence for people.

    `keeps_changes` makes the unit of work commit before the error goes on: for the
    few errors that are themselves facts to store, such as a stolen token's use.
    """

    status: ClassVar[int] = 500
    code: str = "internal_error"
    title: ClassVar[str] = "Internal error"
    keeps_changes: ClassVar[bool] = False

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        errors: list[FieldError] | None = None,
        headers: Mapping[str, str] | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.code = code or type(self).code
        self.errors = errors or []
        self.headers = dict(headers or {})
        self.extra = dict(extra or {})
        """Further members of the problem, such as the id of what it is about."""

    def problem(self) -> dict[str, Any]:
        """The members of its problem document, RFC 9457."""
        members: dict[str, Any] = {
            "type": "about:blank",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            "code": self.code,
            **self.extra,
        }
        return members | ({"errors": self.errors} if self.errors else {})


class BadRequestError(AppError):
    status, code, title = 400, "bad_request", "Bad request"


class UnauthenticatedError(AppError):
    status, code, title = 401, "unauthenticated", "Authentication required"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail, code=code, headers={"WWW-Authenticate": "Bearer"})


class ForbiddenError(AppError):
    status, code, title = 403, "forbidden", "Not allowed"


class NotFoundError(AppError):
    """Also what a principal gets for a thing it may not see."""

    status, code, title = 404, "not_found", "Not found"


class ConflictError(AppError):
    status, code, title = 409, "conflict", "Conflict"


class RequestTimeoutError(AppError):
    """The rest of the request may still come, so the connection is of no more use."""

    status, code, title = 408, "request_timeout", "Request too slow"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, headers={"Connection": "close"})


class PayloadTooLargeError(AppError):
    status, code, title = 413, "payload_too_large", "Request too large"


class UnsupportedMediaTypeError(AppError):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"


class ValidationFailedError(AppError):
    status, code, title = 422, "validation_failed", "Some fields are wrong"


class RateLimitedError(AppError):
    status, code, title = 429, "rate_limited", "Too many requests"


class UnavailableError(AppError):
    status, code, title = 503, "unavailable", "Service unavailable"

    def __init__(
        self, detail: str, *, code: str | None = None, retry_after: int = 5
    ) -> None:
        super().__init__(detail, code=code, headers={"Retry-After": str(retry_after)})


class OverloadedError(UnavailableError):
    """Past capacity: refused at once, so that the rest is served as well as ever."""

    code = "overloaded"

    def __init__(self, reason: str = "The server is overloaded") -> None:
        super().__init__(f"{reason}: try again shortly.", retry_after=2)
