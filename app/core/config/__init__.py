"""Settings: the only reader of the environment.

A value comes from, the first that has it: the environment, a file named by
`<NAME>_FILE` (secrets), `.env.{ENVIRONMENT}`, `.env`, the default written here.
The `.env` files are looked for in the working directory.

A new area is a module here, a field of `Settings`, and a title in
`app/core/env_example.py`.
"""

from app.core.config.account import AccountSettings
from app.core.config.base import ROOT, ConfigError
from app.core.config.cors import CorsSettings
from app.core.config.database import DatabaseSettings
from app.core.config.desk import DeskSettings
from app.core.config.jobs import JobSettings
from app.core.config.limits import LimitSettings
from app.core.config.live import CHANGEABLE, LiveSettings
from app.core.config.loading import (
    changed,
    choices,
    get_settings,
    is_first_start,
    load_settings,
    passed_on,
    variables,
)
from app.core.config.log import LogSettings
from app.core.config.login import LoginSettings, OidcSettings
from app.core.config.mail import MailSettings
from app.core.config.message_logs import MessageLogSettings
from app.core.config.models import ModelSettings
from app.core.config.redis import RedisSettings
from app.core.config.security import SecuritySettings
from app.core.config.server import ServerSettings
from app.core.config.settings import GROUPS, Settings
from app.core.config.storage import StorageSettings
from app.core.config.turns import TurnSettings

__all__ = [
    "CHANGEABLE",
    "GROUPS",
    "ROOT",
    "AccountSettings",
    "ConfigError",
    "CorsSettings",
    "DatabaseSettings",
    "DeskSettings",
    "JobSettings",
    "LimitSettings",
    "LiveSettings",
    "LogSettings",
    "LoginSettings",
    "MailSettings",
    "MessageLogSettings",
    "ModelSettings",
    "OidcSettings",
    "RedisSettings",
    "SecuritySettings",
    "ServerSettings",
    "Settings",
    "StorageSettings",
    "TurnSettings",
    "changed",
    "choices",
    "get_settings",
    "is_first_start",
    "load_settings",
    "passed_on",
    "variables",
]
