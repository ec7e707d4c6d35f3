from pydantic import Field

from app.core.config.base import Group


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
