from pydantic import Field

from app.core.config.base import MOST_DAYS, Group


class MessageLogSettings(Group):
    text: bool = Field(
        True,
        alias="MESSAGE_LOG_TEXT",
        description="Keep what was asked and answered, sealed, for admins to read; "
        "without it the logs hold figures alone.",
    )
    days: float = Field(
        90,
        alias="MESSAGE_LOG_DAYS",
        gt=0,
        le=MOST_DAYS,
        description="How long message logs are kept.",
    )
    flush_seconds: float = Field(
        1,
        alias="MESSAGE_LOG_FLUSH_SECONDS",
        gt=0,
        description="How long an entry may wait for others to be stored with; a "
        "killed process loses what waits.",
    )
    buffer_bytes: int = Field(
        32 * 2**20,
        alias="MESSAGE_LOG_BUFFER_BYTES",
        ge=2**20,
        description="What may wait in a process, in bytes; beyond it calls end only "
        "as fast as the database takes their entries.",
    )
