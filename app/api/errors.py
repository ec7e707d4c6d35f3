"""Every error that a client sees is made here, as a problem document (RFC 9457).

Clients of the gateway get it in the format of the API that they speak.
"""

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from itertools import combinations
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from app.api.gateway.errors import gateway_error
from app.core.exceptions import (
    AppError,
    FieldError,
    NotFoundError,
    OverloadedError,
    PayloadTooLargeError,
    RequestTimeoutError,
    ValidationFailedError,
)
from app.core.logging import about

_log = structlog.get_logger()
_KNOWN: dict[int, AppError] = {
    404: NotFoundError("There is nothing at this address."),
    408: RequestTimeoutError("The request came in too slowly."),
    413: PayloadTooLargeError("The request is too large."),
    503: OverloadedError(),
}
"""Errors of the framework that are also ours."""
_NOTHING = object()
_SENTENCES = {405: "This address does not take that method."}


def problem(
    members: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
) -> Response:
    request_id = about.get().get("request_id")
    return _Problem({**members, "request_id": request_id}, headers or {})


class _Problem(Response):
    def __init__(self, members: Mapping[str, Any], headers: Mapping[str, str]) -> None:
        super().__init__(
            orjson.dumps(members),
            status_code=members["status"],
            media_type="application/problem+json",
            headers=dict(headers),
        )
        self._members = members

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = gateway_error(scope, self._members)
        if body is not None:
            self.body = body
            self.headers["content-length"] = str(len(body))
            self.headers["content-type"] = "application/json"
        await super().__call__(scope, receive, send)


def install(app: FastAPI) -> None:
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)


async def rendered(request: Request, error: AppError | HTTPException) -> Response:
    """The answer for an error that was expected."""
    handle = _app_error if isinstance(error, AppError) else _http_error
    return await handle(request, error)


def unexpected(path: str, error: Exception) -> Response:
    """The answer for what nobody has foreseen; its cause is left to the log."""
    _log.error("unexpected error", path=path, exc_info=error)
    failed = AppError(
        "Something went wrong on our side; the log has it under this request_id."
    )
    return problem(failed.problem(), headers=failed.headers)


async def _app_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)
    return problem(error.problem(), headers=error.headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    """Every wrong field at once; what was sent is not repeated: it may be secret."""
    assert isinstance(error, RequestValidationError)
    wrong = [_field_error(e, error.body) for e in error.errors()]
    failed = ValidationFailedError(
        "; ".join(f"{e['path']}: {e['message']}" for e in wrong), errors=wrong
    )
    return await _app_error(request, failed)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    if status in _KNOWN:
        return await _app_error(request, _KNOWN[status])
    phrase = HTTPStatus(status).phrase
    members = {
        "type": "about:blank",
        "title": phrase.capitalize(),
        "status": status,
        "detail": _SENTENCES.get(status, str(error.detail)),
        "code": phrase.lower().replace(" ", "_"),
    }
    return problem(members, headers=error.headers)


def _field_error(error: Mapping[str, Any], body: Any) -> FieldError:
    if error["type"] == "json_invalid":  # its location is a place in the text
        reason, place = error["ctx"]["error"], error["loc"][-1]
        return FieldError(
            path="body", message=f"is no JSON: {reason} at character {place}"
        )
    if error["type"] == "bytes_type":  # it was taken for JSON
        return FieldError(
            path="body", message="must be the file itself: tell its Content-Type"
        )
    path = ".".join(str(name) for name in _path(error, body)) or "body"
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in {"union_tag_invalid", "union_tag_not_found"}:
        path += "." + error["ctx"]["discriminator"].strip("'")  # the field that tells
    if error["type"] == "union_tag_invalid":  # the library repeats what was sent
        message = f"must be one of {error['ctx']['expected_tags']}"
    return FieldError(path=path, message=message)


def _path(error: Mapping[str, Any], body: Any) -> Sequence[str | int]:
    """Where the wrong value stands in what was sent.

    The library's location also names the arms of unions that it tried, which nobody
    sent: the names that lead to the value are the right ones, the most that do.
    """
    names: tuple[str | int, ...] = error["loc"][1:]
    missing = error["type"] == "missing"  # then the value is what it is missing in
    for left_out in range(len(names) + 1):
        for kept in combinations(names, len(names) - left_out):
            place = _value_at(body, kept[:-1] if missing else kept)
            if place is error["input"]:
                return kept
    return names


def _value_at(body: Any, names: Sequence[str | int]) -> Any:
    for name in names:
        try:
            body = body[name]
        except (KeyError, IndexError, TypeError):
            return _NOTHING
    return body
