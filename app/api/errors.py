"""Every error that a client sees is made here, as a problem document (RFC 9457)."""

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app.core.exceptions import AppError, FieldError, ValidationFailedError

_log = structlog.get_logger()
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
}
_SENTENCES = {
    404: "There is nothing at this address.",
    405: "This address does not take that method.",
    413: "The request is too large.",
}


def problem(
    members: Mapping[str, Any], *, headers: Mapping[str, str] | None = None
) -> Response:
    request_id = structlog.contextvars.get_contextvars().get("request_id")
    return Response(
        orjson.dumps({**members, "request_id": request_id}),
        status_code=members["status"],
        media_type="application/problem+json",
        headers=dict(headers or {}),
    )


def install(app: FastAPI) -> None:
    app.add_exception_handler(AppError, _app_error)
    app.add_exception_handler(RequestValidationError, _validation_error)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(Exception, _unexpected)


async def _app_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, AppError)
    return problem(error.problem(), headers=error.headers)


async def _validation_error(request: Request, error: Exception) -> Response:
    """Every wrong field at once; what was sent is not repeated: it may be secret."""
    assert isinstance(error, RequestValidationError)
    wrong = [
        FieldError(path=_path(e["loc"]), message=_message(e["msg"]))
        for e in error.errors()
    ]
    failed = ValidationFailedError(
        "; ".join(f"{e['path']}: {e['message']}" for e in wrong), errors=wrong
    )
    return await _app_error(request, failed)


async def _http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = error.status_code
    phrase = HTTPStatus(status).phrase
    members = {
        "type": "about:blank",
        "title": phrase,
        "status": status,
        "detail": _SENTENCES.get(status, str(error.detail)),
        "code": _CODES.get(status, phrase.lower().replace(" ", "_")),
    }
    return problem(members, headers=error.headers)


async def _unexpected(request: Request, error: Exception) -> Response:
    _log.error("unexpected error", path=request.url.path, exc_info=error)
    detail = "Something went wrong on our side; the log has it under this request_id."
    return await _app_error(request, AppError(detail))


def _path(location: tuple[int | str, ...]) -> str:
    """Without the part of the request and the arm of a union, which say nothing."""
    kept = [str(p) for p in location[1:] if not str(p).startswith(("str", "list["))]
    return ".".join(kept) or "body"


def _message(text: str) -> str:
    return text.removeprefix("Value error, ")
