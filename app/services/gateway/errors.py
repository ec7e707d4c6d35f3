"""What clients of the gateway hear of a provider's failure."""

from app.core.exceptions import AppError, NotFoundError
from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
)

_SENTENCES: dict[type[ProviderError], str] = {
    ProviderAuthError: "This installation cannot use the model: tell its admins.",
    ProviderNotConfiguredError: "The model is not set up: tell the admins.",
    ProviderStreamBrokenError: "The model's answer broke off.",
    ProviderThrottledError: "The model gets too many calls just now: try again later.",
    ProviderTimeoutError: "The model took too long to answer.",
}
_OTHER = "The model is not available just now: try again later."


def told(error: AppError) -> AppError:
    """The same error without the provider's host, account or words.

    Only why a request was refused is told in its words: whoever sent it must know.
    """
    if error.code in {"unknown_model", "unknown_provider"}:  # 404, as clients expect
        return NotFoundError(error.detail, code="unknown_model")
    if not isinstance(error, ProviderError):
        return error
    if isinstance(error, ProviderRejectedError):
        return ProviderRejectedError(error.reason or error.detail)
    public = type(error)(_SENTENCES.get(type(error), _OTHER))
    public.headers = error.headers
    return public
