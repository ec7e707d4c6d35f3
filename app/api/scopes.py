"""Which scope lets an API key in where: what is not listed is for people alone."""

import re

from app.core.exceptions import ForbiddenError
from app.services.authorization import Principal

_READING = ("GET", "HEAD")
_RULES = (
    (re.compile(r"/v1/.*"), "chats:read", "chats:write"),
    (re.compile(r"/api/v1/(?:chats|messages)(?:/.*)?"), "chats:read", "chats:write"),
    (re.compile(r"/api/v1/models(?:/.*)?"), "models:read", None),
    (re.compile(r"/api/v1/usage(?:/limits)?"), "usage:read", None),
    (re.compile(r"/api/v1/(?:users|auth)/me"), "profile:read", None),
)
"""Each path's scope for reading, and for everything else."""


def scope_for(method: str, path: str) -> str | None:
    """The scope that a key needs; None where keys may do nothing."""
    for pattern, reading, changing in _RULES:
        if pattern.fullmatch(path):
            return reading if method in _READING else changing
    return None


def check_scope(principal: Principal, method: str, path: str) -> None:
    """Raises ForbiddenError for a key that may not do this."""
    if principal.scopes is None:
        return
    needed = scope_for(method, path)
    if needed is None:
        raise ForbiddenError(
            "An API key cannot do this: log in.", code="login_required"
        )
    if needed not in principal.scopes:
        raise ForbiddenError(
            f"This API key lacks the scope {needed}.", code="insufficient_scope"
        )
