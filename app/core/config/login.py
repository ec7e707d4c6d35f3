import json
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)

from app.core.config.base import Group, List

_MFA_ENTRY = re.compile(r"user|admin|staff(?::[1-3])?")


def _kinds(entries: tuple[str, ...]) -> tuple[str, ...]:
    for entry in entries:
        if _MFA_ENTRY.fullmatch(entry) is None:
            raise ValueError(
                f"{entry} is no kind of account: name user, staff, admin, or a level "
                "of support from which on it is asked, such as staff:2"
            )
    return entries


class OidcSettings(BaseModel):
    """One identity provider."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,31}$")
    issuer: str = Field(max_length=255)
    client_id: str = Field(min_length=1)
    client_secret: SecretStr = SecretStr("")

    @property
    def is_safe(self) -> bool:
        """Whether nobody on the way can speak for the issuer."""
        parts = urlsplit(self.issuer)
        local = parts.hostname in {"localhost", "127.0.0.1", "::1"}
        return parts.scheme == "https" or (parts.scheme == "http" and local)


def _providers(text: SecretStr) -> SecretStr:
    _parse_providers(text)
    return text


def _parse_providers(text: SecretStr) -> tuple[OidcSettings, ...]:
    """Raises ValueError, which repeats nothing of what may be a secret."""
    try:
        given = json.loads(text.get_secret_value() or "{}")
        return tuple(
            OidcSettings.model_validate({**fields, "name": name})
            for name, fields in given.items()
        )
    except (ValidationError, ValueError, TypeError, AttributeError):
        raise ValueError(
            'write it as {"name": {"issuer": "https://...", "client_id": "...", '
            '"client_secret": "..."}}; a name has lower case letters, digits, dashes'
        ) from None


class LoginSettings(Group):
    lockout_failures: int = Field(
        5,
        alias="LOCKOUT_FAILURES",
        ge=1,
        description="Failed logins in a row after which an account must wait; counted "
        "for each place that its owner is known at, and for all others together.",
    )
    lockout_seconds: float = Field(
        300,
        alias="LOCKOUT_SECONDS",
        gt=0,
        description="How long it must wait then; twice as long after each further "
        "failure.",
    )
    lockout_max_seconds: float = Field(
        3600,
        alias="LOCKOUT_MAX_SECONDS",
        gt=0,
        description="The longest that an account must wait.",
    )
    lockout_address_failures: int = Field(
        100,
        alias="LOCKOUT_ADDRESS_FAILURES",
        ge=1,
        description="Failed logins in an hour after which an address must wait for "
        "the hour's end.",
    )
    mfa_required: Annotated[List, AfterValidator(_kinds)] = Field(
        (),
        alias="MFA_REQUIRED",
        description="Kinds of accounts that must have a second factor, comma "
        "separated: user, staff, admin; staff:2 is support of level 2 and above.",
    )

    google_client_id: str = Field(
        "",
        alias="GOOGLE_CLIENT_ID",
        description="Client id at Google; turns on logging in with Google.",
    )
    google_client_secret: SecretStr = Field(
        SecretStr(""), alias="GOOGLE_CLIENT_SECRET", description="Its secret."
    )
    google_issuer: str = Field(
        "https://accounts.google.com",
        alias="GOOGLE_ISSUER",
        description="Another OpenID Connect provider in Google's place.",
    )
    oidc_providers: Annotated[SecretStr, AfterValidator(_providers)] = Field(
        SecretStr(""),
        alias="OIDC_PROVIDERS",
        description="Further OpenID Connect providers, as JSON: "
        '{"name": {"issuer": "https://...", "client_id": "...", "client_secret": '
        '"..."}}.',
    )
    oidc_return_url: str = Field(
        "",
        alias="OIDC_RETURN_URL",
        description="The page that a login by a provider comes back to, with `code` or "
        "`error`; by default PUBLIC_URL/login.",
    )

    @property
    def identity_providers(self) -> tuple[OidcSettings, ...]:
        others = _parse_providers(self.oidc_providers)
        if not self.google_client_id:
            return others
        google = OidcSettings(
            name="google",
            issuer=self.google_issuer,
            client_id=self.google_client_id,
            client_secret=self.google_client_secret,
        )
        return (google, *others)

    def requires_mfa(self, kind: str, level: int) -> bool:
        """Whether such accounts must have a second factor; `level` is of support."""
        for entry in self.mfa_required:
            required, _, least = entry.partition(":")
            if required == kind and level >= int(least or 0):
                return True
        return False
