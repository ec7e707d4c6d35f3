from collections.abc import Mapping
from dataclasses import dataclass, field, fields

from app.core.config.account import AccountSettings
from app.core.config.base import Group
from app.core.config.cors import CorsSettings
from app.core.config.database import DatabaseSettings
from app.core.config.desk import DeskSettings
from app.core.config.jobs import JobSettings
from app.core.config.limits import LimitSettings
from app.core.config.log import LogSettings
from app.core.config.login import LoginSettings
from app.core.config.mail import MailSettings
from app.core.config.message_logs import MessageLogSettings
from app.core.config.models import ModelSettings
from app.core.config.redis import RedisSettings
from app.core.config.security import SecuritySettings
from app.core.config.server import ServerSettings
from app.core.config.storage import StorageSettings
from app.core.config.turns import TurnSettings


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, grouped by area; `sources` tells where each set one came from."""

    server: ServerSettings
    database: DatabaseSettings
    redis: RedisSettings
    limits: LimitSettings
    security: SecuritySettings
    login: LoginSettings
    desk: DeskSettings
    accounts: AccountSettings
    cors: CorsSettings
    log: LogSettings
    models: ModelSettings
    turns: TurnSettings
    jobs: JobSettings
    storage: StorageSettings
    mail: MailSettings
    message_logs: MessageLogSettings
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def database_url(self) -> str:
        """The URL with an async driver, ready for SQLAlchemy."""
        return self.database.url(self.server.data_dir)

    @property
    def verification_required(self) -> bool:
        """Whether an account begins with the link that is mailed to its address."""
        if self.mail.email_verification is not None:
            return self.mail.email_verification == "required"
        return self.server.environment != "development" and bool(self.mail.smtp_host)


GROUPS: dict[str, type[Group]] = {
    area.name: area.type
    for area in fields(Settings)
    if isinstance(area.type, type) and issubclass(area.type, Group)
}
"""Every area, in the order in which people read them."""
