from typing import Any

import pytest

from app.core.exceptions import NotFoundError, UnauthenticatedError
from app.services.gateway import openai
from app.services.gateway.chat_completions import CHAT_COMPLETIONS
from app.services.gateway.fields import InvalidFieldError
from app.services.gateway.responses import RESPONSES


@pytest.mark.parametrize(
    ("status", "code", "type_", "told"),
    [
        (400, "invalid_request", "invalid_request_error", "invalid_request"),
        (401, "unauthenticated", "authentication_error", "invalid_api_key"),
        (401, "token_expired", "authentication_error", "invalid_api_key"),
        (402, "insufficient_credits", "insufficient_quota", "insufficient_quota"),
        (403, "model_not_allowed", "permission_error", "model_not_allowed"),
        (404, "unknown_model", "invalid_request_error", "model_not_found"),
        (413, "payload_too_large", "invalid_request_error", "payload_too_large"),
        (429, "rate_limited", "rate_limit_error", "rate_limit_exceeded"),
        (429, "daily_limit_reached", "rate_limit_error", "daily_limit_reached"),
        (500, "internal_error", "server_error", "internal_error"),
        (503, "provider_throttled", "server_error", "provider_throttled"),
    ],
)
def test_an_error_has_openai_s_type_and_code(
    status: int, code: str, type_: str, told: str
) -> None:
    problem = {"title": "T", "status": status, "detail": "D", "code": code}

    assert openai.error(problem) == {
        "error": {"message": "D", "type": type_, "param": None, "code": told}
    }


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            InvalidFieldError("messages.0.role", "is required"),
            ("messages.0.role: is required", "messages.0.role", "invalid_request"),
        ),
        (UnauthenticatedError("No."), ("No.", None, "invalid_api_key")),
        (
            NotFoundError("Gone.", code="unknown_model"),
            ("Gone.", None, "model_not_found"),
        ),
    ],
)
def test_our_errors_are_told_in_it(error: Any, told: tuple[str, ...]) -> None:
    body = openai.error(error.problem())["error"]

    assert (body["message"], body["param"], body["code"]) == told


def test_a_problem_needs_no_more_than_the_standard_s_members() -> None:
    assert openai.error({"title": "Bad gateway", "status": 502})["error"] == {
        "message": "Bad gateway",
        "type": "server_error",
        "param": None,
        "code": None,
    }


def test_both_formats_tell_errors_alike() -> None:
    problem = NotFoundError("Gone.").problem()

    assert CHAT_COMPLETIONS.error(problem) == RESPONSES.error(problem)
