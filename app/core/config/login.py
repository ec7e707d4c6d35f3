import re
from typing import Annotated

from pydantic import AfterValidator, Field

from app.core.config.base import Group, List

_MFA_ENTRY = re.compile(r"user|admin|staff(?::[1-3])?")


def _kinds(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        if _MFA_ENTRY.fullmatch(entry) is None:
            raise ValueError(
                f"{entry} is no kind of account: name user, staff, admin, or a level "
                "of support from which on it is asked, such as staff:2"
            )
    return entries


class LoginSettings(Group):
    lockout_failures: int = Field(
        5,
        alias="LOCKOUT_FAILURES",
        ge=1,
        description="Failed logins in a row after which an account must wait; counted "
        "for each place that its owner is known at, and for all others together.",
    )
    lockout_seconds: float = Field(
        300,
        alias="LOCKOUT_SECONDS",
        gt=0,
        description="How long it must wait then; twice as long after each further "
        "failure.",
    )
    lockout_max_seconds: float = Field(
        3600,
        alias="LOCKOUT_MAX_SECONDS",
        gt=0,
        description="The longest that an account must wait.",
    )
    lockout_address_failures: int = Field(
        100,
        alias="LOCKOUT_ADDRESS_FAILURES",
        ge=1,
        description="Failed logins in an hour after which an address must wait for "
        "the hour's end.",
    )
    mfa_required: Annotated[List, AfterValidator(_kinds)] = Field(
        (),
        alias="MFA_REQUIRED",
        description="Kinds of accounts that must have a second factor, comma "
        "separated: user, staff, admin; staff:2 is support of level 2 and above.",
    )

    def requires_mfa(self, kind: str, level: int) -> bool:
        """Whether such accounts must have a second factor; `level` is of support."""
        for entry in self.mfa_required:
            required, _, least = entry.partition(":")
            if required == kind and level >= int(least or 0):
                return True
        return False
