from pathlib import Path

from pydantic import Field, SecretStr

from app.core.config.base import Group

DRIVERS = {
    "sqlite:": "sqlite+aiosqlite:",
    "postgresql:": "postgresql+asyncpg:",
    "postgres:": "postgresql+asyncpg:",
}
"""How a URL may begin, and how SQLAlchemy wants it."""


class DatabaseSettings(Group):
    url_setting: SecretStr | None = Field(
        None,
        alias="DATABASE_URL",
        description="sqlite:///path or postgresql://user:password@host/name; by "
        "default SQLite in DATA_DIR.",
    )
    pool_size: int = Field(
        10,
        alias="DB_POOL_SIZE",
        ge=1,
        description="Connections kept open; the busiest statements have as many of "
        "their own.",
    )
    max_overflow: int = Field(
        10, alias="DB_MAX_OVERFLOW", ge=0, description="Connections beyond these."
    )
    pool_timeout: float = Field(
        10,
        alias="DB_POOL_TIMEOUT",
        gt=0,
        description="Seconds to wait for a connection before a 503.",
    )
    statement_timeout: float = Field(
        15,
        alias="DB_STATEMENT_TIMEOUT",
        gt=0,
        le=3600,
        description="Seconds that a statement may take, or wait for a lock, before a "
        "503; migrations take as long as they need.",
    )

    def url(self, data_dir: Path) -> str:
        """With an async driver, ready for SQLAlchemy."""
        if self.url_setting is None:
            return f"sqlite+aiosqlite:///{data_dir / 'workroom.db'}"
        url = self.url_setting.get_secret_value()
        for plain, driver in DRIVERS.items():
            if url.startswith(plain):
                return driver + url.removeprefix(plain)
        return url
