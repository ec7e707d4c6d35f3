"""Accounts of a Workroom installation for other applications."""

from workroom_auth.client import WorkroomAuth
from workroom_auth.errors import (
    AuthError,
    ForbiddenError,
    LimitExceededError,
    UnauthenticatedError,
    UnavailableError,
)
from workroom_auth.identity import Identity

__all__ = [
    "AuthError",
    "ForbiddenError",
    "Identity",
    "LimitExceededError",
    "UnauthenticatedError",
    "UnavailableError",
    "WorkroomAuth",
]
