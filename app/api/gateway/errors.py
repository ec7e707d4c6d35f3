"""Errors as the gateway's clients read them: each in the format of its own API."""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.types import Scope

from app.services.gateway.chat_completions import CHAT_COMPLETIONS
from app.services.gateway.format import Format
from app.services.gateway.messages import MESSAGES

_VERSION = b"anthropic-version"
"""A header that all of Anthropic's clients send."""


def gateway_error(scope: Scope, problem: Mapping[str, Any]) -> bytes | None:
    """The body for a client of the gateway; None for all others."""
    path: str = scope.get("path", "")
    if not path.startswith("/v1/"):
        return None
    return orjson.dumps(_format(scope, path).error(problem))


def _format(scope: Scope, path: str) -> Format:
    if path.startswith("/v1/messages"):
        return MESSAGES
    if any(name == _VERSION for name, _ in scope["headers"]):
        return MESSAGES
    return CHAT_COMPLETIONS
