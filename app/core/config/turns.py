from pydantic import Field

from app.core.config.base import Group


class TurnSettings(Group):
    checkpoint_seconds: float = Field(
        1,
        alias="TURN_CHECKPOINT_SECONDS",
        gt=0,
        description="How often a running reply's text is saved.",
    )
    lease_seconds: float = Field(
        10,
        alias="TURN_LEASE_SECONDS",
        gt=0,
        description="A running reply not saved for so long counts as interrupted.",
    )
    keepalive_seconds: float = Field(
        15,
        alias="KEEPALIVE_SECONDS",
        gt=0,
        description="How often a quiet stream sends a comment line.",
    )
    max_running: int = Field(
        200,
        alias="MAX_RUNNING_TURNS",
        ge=1,
        description="Replies running at once in a process; beyond it 503.",
    )
    max_running_per_user: int = Field(
        100,
        alias="MAX_RUNNING_TURNS_PER_USER",
        ge=1,
        description="Of these, replies of one user; beyond it 429.",
    )
