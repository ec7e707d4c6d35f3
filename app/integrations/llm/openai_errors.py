"""What servers with OpenAI's API say of a failure, classified.

Reference: "Error codes" in OpenAI's API documentation.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderRejectedError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from app.integrations.llm.http import by_status, refused

_ERRORS: Mapping[str, type[ProviderError]] = {
    "ratelimitexceeded": ProviderThrottledError,
    "ratelimiterror": ProviderThrottledError,
    "toomanyrequests": ProviderThrottledError,
    # Waiting does not help here: somebody has to pay.
    "insufficientquota": ProviderAuthError,
    "billinghardlimitreached": ProviderAuthError,
    "invalidapikey": ProviderAuthError,
    "authenticationerror": ProviderAuthError,
    "permissionerror": ProviderAuthError,
    "permissiondeniederror": ProviderAuthError,
    "insufficientpermissions": ProviderAuthError,
    "contextlengthexceeded": ProviderRejectedError,
    "exceedcontextsizeerror": ProviderRejectedError,
    "modelnotfound": ProviderRejectedError,
    "notfounderror": ProviderRejectedError,
    "badrequesterror": ProviderRejectedError,
    "contentpolicyviolation": ProviderRejectedError,
    "servererror": ProviderUnavailableError,
    "internalservererror": ProviderUnavailableError,
    "serviceunavailable": ProviderUnavailableError,
    "unavailableerror": ProviderUnavailableError,
    "overloadederror": ProviderUnavailableError,
    "timeout": ProviderTimeoutError,
}
"""By code or type, whichever is known, in lower case without underscores: servers write
`not_found_error` or `NotFoundError`. `invalid_request_error` is missing on purpose,
since OpenAI sends it with a 401 as well."""


def refusal_of(
    who: str, status: int, body: bytes, wait: float | None = None
) -> ProviderError:
    """The error of a call that was not taken."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = {}
    return error_of(who, answer if isinstance(answer, dict) else {}, status, wait)


def error_of(
    who: str, answer: Mapping[str, Any], status: int = 0, wait: float | None = None
) -> ProviderError:
    """Classifies `{"error": {...}}`, and vLLM's form without the outer object.

    Without a status, in mid-stream, a number as the code stands for one.
    """
    error = answer.get("error") or answer
    if not isinstance(error, dict):
        error = {"message": error}
    code, type_ = error.get("code"), error.get("type")
    known = (_ERRORS.get(str(n).lower().replace("_", "")) for n in (code, type_))
    kind = next(filter(None, known), None)
    if kind is None:
        if not status and type_ == "invalid_request_error":
            status = 400
        kind = by_status(status or (code if isinstance(code, int) else 502))
    # OpenAI's words on a wrong key hold parts of it.
    words = "" if kind is ProviderAuthError else str(error.get("message") or "")
    name = str(code or type_ or f"status {status}")
    return refused(kind, who, name, words, wait=wait)
