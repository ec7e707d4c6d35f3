from pydantic import Field, SecretStr

from app.core.config.base import Group


class DeskSettings(Group):
    admin_email: str | None = Field(
        None,
        alias="ADMIN_EMAIL",
        description="With ADMIN_PASSWORD: the first admin, made by the start while "
        "there is none.",
    )
    admin_username: str = Field(
        "admin", alias="ADMIN_USERNAME", description="The first admin's username."
    )
    admin_password: SecretStr | None = Field(
        None,
        alias="ADMIN_PASSWORD",
        description="The first admin's password; of no use once they have logged in "
        "and changed it.",
    )
