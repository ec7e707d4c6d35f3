from email.errors import HeaderParseError
from email.headerregistry import Address
from email.utils import parseaddr
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from app.core.config.base import Group

_PORTS = {"starttls": 587, "tls": 465, "none": 25}


def _sender(value: str) -> str:
    if value:
        sender(value)
    return value


def sender(value: str) -> Address:
    """`Name <address>` or an address alone; raises ValueError for anything else."""
    name, address = parseaddr(value)
    try:
        found = Address(name, addr_spec=address)
    except (HeaderParseError, IndexError, ValueError):
        found = Address()
    if not (found.username and found.domain):
        raise ValueError("write it as Workroom <no-reply@example.com>")
    return found


class MailSettings(Group):
    smtp_host: str = Field(
        "",
        alias="SMTP_HOST",
        description="The server that takes mail; without one, mail is written as "
        "files into DATA_DIR/mail.",
    )
    smtp_port: int | None = Field(
        None,
        alias="SMTP_PORT",
        ge=1,
        le=65535,
        description="Its port; by default 587 for starttls, 465 for tls, 25 for none.",
    )
    smtp_security: Literal["starttls", "tls", "none"] = Field(
        "starttls",
        alias="SMTP_SECURITY",
        description="starttls (required, not merely tried), tls from the first byte, "
        "or none for a server on this machine.",
    )
    smtp_username: str = Field(
        "", alias="SMTP_USERNAME", description="Who logs in there; empty: nobody."
    )
    smtp_password: SecretStr | None = Field(
        None, alias="SMTP_PASSWORD", description="The password for SMTP_USERNAME."
    )
    smtp_timeout: float = Field(
        30,
        alias="SMTP_TIMEOUT_SECONDS",
        gt=0,
        description="How long each step with it may take; the mail is tried again "
        "later.",
    )
    mail_from: Annotated[str, AfterValidator(_sender)] = Field(
        "",
        alias="MAIL_FROM",
        description="Who mail is from, such as Workroom <no-reply@example.com>.",
    )
    email_verification: Literal["optional", "required"] | None = Field(
        None,
        alias="EMAIL_VERIFICATION",
        description="optional: an account works at once. required: it begins with the "
        "link mailed to its address, and nobody learns which addresses have one; the "
        "default outside of development where SMTP_HOST is set.",
    )

    @property
    def port(self) -> int:
        return self.smtp_port or _PORTS[self.smtp_security]
