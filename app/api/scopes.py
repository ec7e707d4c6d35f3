"""Which scopes let an API key in where: what is not listed is for people alone."""

import re
from functools import lru_cache
from typing import NamedTuple

from app.core.exceptions import ForbiddenError
from app.services.authorization import Principal

_READING = ("GET", "HEAD")
_NONE: tuple[str, ...] = ()


class _Rule(NamedTuple):
    """The scopes for reading, and for everything else; any of them is enough."""

    path: re.Pattern[str]
    reading: tuple[str, ...]
    changing: tuple[str, ...]


def _rule(
    path: str, *, reading: tuple[str, ...] = _NONE, changing: tuple[str, ...] = _NONE
) -> _Rule:
    return _Rule(re.compile(path), reading, changing)


# The first that fits; those that are asked for most stand in front.
_RULES = (
    _rule(
        r"/v1/(?:chat/completions|responses|messages(?:/count_tokens)?)",
        changing=("chat",),
    ),
    _rule(r"/v1/embeddings", changing=("embeddings",)),
    # Who starts a reply must be able to read on where its connection broke.
    _rule(r"/api/v1/messages/[^/]+/stream", reading=("read", "chat")),
    _rule(r"/api/v1/(?:chats|messages)(?:/.*)?", reading=("read",), changing=("chat",)),
    _rule(r"/(?:api/)?v1/models(?:/.*)?", reading=("models", "read")),
    _rule(
        r"/(?:api/)?v1/files(?:/.*)?", reading=("files", "read"), changing=("files",)
    ),
    _rule(
        r"/api/v1/projects/[^/]+/documents(?:/.*)?",
        reading=("read",),
        changing=("files",),
    ),
    _rule(r"/api/v1/projects(?:/.*)?", reading=("read",)),
    _rule(
        r"/v1/fine_tuning/.*|/api/v1/(?:finetune|datasets)(?:/.*)?",
        reading=("finetune",),
        changing=("finetune",),
    ),
    _rule(r"/api/v1/usage(?:/limits)?", reading=("read",)),
    _rule(r"/api/v1/(?:users|auth)/me", reading=("read",)),
)


@lru_cache(256)
def scopes_for(method: str, path: str) -> tuple[str, ...]:
    """The scopes of which a key needs one; empty where keys may do nothing."""
    for rule in _RULES:
        if rule.path.fullmatch(path):
            return rule.reading if method in _READING else rule.changing
    return _NONE


def check_scope(principal: Principal, method: str, path: str) -> None:
    """Raises ForbiddenError for a key that may not do this."""
    if principal.scopes is None:
        return
    needed = scopes_for(method, path)
    if not needed:
        raise ForbiddenError(
            "An API key cannot do this: log in.", code="login_required"
        )
    if principal.scopes.isdisjoint(needed):
        raise ForbiddenError(
            f"This API key lacks the scope {' or '.join(needed)}.",
            code="insufficient_scope",
        )
