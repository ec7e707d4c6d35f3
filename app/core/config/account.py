from pydantic import Field

from app.core.config.base import MOST_DAYS, Group


class AccountSettings(Group):
    keep_deleted_days: float = Field(
        30,
        alias="DELETED_USER_DAYS",
        gt=0,
        le=MOST_DAYS,
        description="How long a deleted account can be restored; then it is erased.",
    )
    keep_backups_days: float = Field(
        30,
        alias="BACKUP_DAYS",
        ge=0,
        le=MOST_DAYS,
        description="How long you keep backups of the database: an erasure's report "
        "names the day on which the last of them that holds the person is due to go.",
    )
