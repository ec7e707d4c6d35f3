"""Who asks, as Workroom told it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from workroom_auth.errors import ForbiddenError, LimitExceededError

_EVERYTHING = "*"


@dataclass(frozen=True, slots=True)
class Identity:
    sub: str
    """The account's id: the name to store things by."""
    sid: str
    """The id of the session or API key that was sent."""
    username: str | None
    plan: str | None
    scopes: frozenset[str]
    """What an API key is confined to; of who is logged in, `*`."""
    expires_at: int | None
    """Seconds since the epoch."""
    limits: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """What `GET /api/v1/usage/limits` tells, as of the moment of the introspection."""
    stale: bool = False
    """Whether Workroom could not be reached, and this is what it told before."""

    @classmethod
    def from_introspection(cls, told: Mapping[str, Any]) -> Identity:
        """Raises KeyError where it is no introspection of an active token."""
        return cls(
            sub=told["sub"],
            sid=told["sid"],
            username=told.get("username"),
            plan=told.get("plan"),
            scopes=frozenset(told["scope"].split()),
            expires_at=told.get("exp"),
            limits=MappingProxyType(told.get("limits") or {}),
        )

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes or _EVERYTHING in self.scopes

    def remaining(self, name: str) -> int | None:
        """What is left of `conversations` or `credits`; None is without limit."""
        limit = self.limits.get(name)
        if not isinstance(limit, Mapping):
            return None
        if limit.get("monthly", limit.get("limit")) is None:
            return None
        return int(limit.get("balance", limit.get("remaining", 0)))

    def require(
        self,
        *scopes: str,
        plans: tuple[str, ...] = (),
        left: tuple[str, ...] = (),
    ) -> Identity:
        """Raise ForbiddenError or LimitExceededError unless all of it is so.

        Every one of `scopes`, one of `plans`, and something of each limit in `left`.
        """
        for scope in scopes:
            if not self.has_scope(scope):
                raise ForbiddenError(f"This API key lacks the scope {scope}.")
        if plans and self.plan not in plans:
            raise ForbiddenError(f"This needs one of the plans: {', '.join(plans)}.")
        for name in left:
            amount = self.remaining(name)
            if amount is not None and amount <= 0:
                raise LimitExceededError(f"Nothing is left of your {name}.")
        return self
