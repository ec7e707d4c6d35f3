from pydantic import Field, SecretStr

from app.core.config.base import Group


class RedisSettings(Group):
    url: SecretStr | None = Field(
        None,
        alias="REDIS_URL",
        description="redis://host:6379/0. Several server processes need it, to tell "
        "each other of replies and of ended sessions.",
    )
