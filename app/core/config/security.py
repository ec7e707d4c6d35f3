import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from app.core.config.base import Group, Networks


def _fernet_keys(keys: SecretStr | None) -> SecretStr | None:
    for key in keys.get_secret_value().split(",") if keys else ():
        try:
            good = len(base64.urlsafe_b64decode(key.strip())) == 32  # noqa: PLR2004 - a Fernet key
        except (binascii.Error, ValueError):
            good = False
        if not good:
            raise ValueError(
                "needs keys of 32 bytes in URL-safe base64: make one with "
                "`python -m app keys generate`"
            )
    return keys


class SecuritySettings(Group):
    secret_key: SecretStr = Field(
        alias="SECRET_KEY",
        description="Signs tokens; at least 32 characters. Changing it ends all "
        "sessions.",
    )
    encryption_key: Annotated[SecretStr | None, AfterValidator(_fernet_keys)] = Field(
        None,
        alias="ENCRYPTION_KEY",
        description="Fernet keys, comma separated, newest first, for columns "
        "encrypted at rest.",
    )
    access_token_minutes: float = Field(
        30, alias="ACCESS_TOKEN_MINUTES", gt=0, description="Life of an access token."
    )
    refresh_token_days: float = Field(
        7,
        alias="REFRESH_TOKEN_DAYS",
        gt=0,
        description="Life of a session, however often it is refreshed.",
    )
    refresh_grace_seconds: float = Field(
        10,
        alias="REFRESH_GRACE_SECONDS",
        ge=0,
        description="How long a used refresh token may be used again by a client "
        "that lost the answer.",
    )
    password_scheme: Literal["bcrypt", "argon2id"] = Field(
        "bcrypt", alias="PASSWORD_SCHEME", description="bcrypt or argon2id."
    )
    bcrypt_rounds: int = Field(
        12, alias="BCRYPT_ROUNDS", ge=4, le=20, description="Cost of a bcrypt hash."
    )
    ip_allow: Networks = Field(
        (),
        alias="IP_ALLOW",
        description="Addresses or CIDR ranges that may use this server, and nobody "
        "else but those that rules of the desk allow, too; by default everybody.",
    )
    ip_deny: Networks = Field(
        (),
        alias="IP_DENY",
        description="Addresses or CIDR ranges that may not, whatever allows them.",
    )
    desk_ip_allow: Networks = Field(
        (),
        alias="DESK_IP_ALLOW",
        description="The same as IP_ALLOW for the desk of admins and staff alone.",
    )
    desk_ip_deny: Networks = Field(
        (),
        alias="DESK_IP_DENY",
        description="The same as IP_DENY for the desk of admins and staff alone.",
    )
