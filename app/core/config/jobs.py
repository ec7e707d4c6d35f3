from pydantic import Field

from app.core.config.base import Group


class JobSettings(Group):
    concurrency: int = Field(
        4, alias="JOB_CONCURRENCY", ge=1, description="Background jobs at once."
    )
    poll_seconds: float = Field(
        2,
        alias="JOB_POLL_SECONDS",
        gt=0,
        description="How often the jobs table is looked at when nothing calls.",
    )
    lease_seconds: float = Field(
        60,
        alias="JOB_LEASE_SECONDS",
        gt=0,
        description="A running job without a heartbeat for so long is taken up again.",
    )
