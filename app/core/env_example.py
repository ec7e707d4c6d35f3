"""The text of the `.env` examples, made from the settings themselves."""

import base64
import secrets
from textwrap import fill
from typing import Any, Literal

from pydantic import SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from app.core.config import choices, variables

Occasion = Literal["development", "production"]

_TITLES = {
    "server": "The server",
    "database": "Database",
    "redis": "Redis",
    "limits": "Limits, for everybody's sake",
    "security": "Security",
    "login": "Logins",
    "desk": "The first admin",
    "accounts": "Accounts that are deleted",
    "cors": "Other sites that call the API (CORS)",
    "log": "Log",
    "models": "Models",
    "turns": "Replies in progress",
    "jobs": "Background jobs",
    "storage": "Files",
    "mail": "Mail",
    "message_logs": "What models were asked and said, for admins",
}

_SET: dict[Occasion | None, dict[str, str]] = {
    None: {"SECRET_KEY": ""},
    "development": {
        "ENVIRONMENT": "development",
        "SECRET_KEY": "",
        "LOG_FORMAT": "console",
    },
    "production": {
        "ENVIRONMENT": "production",
        "PUBLIC_URL": "https://workroom.example.com",
        "ALLOWED_HOSTS": "workroom.example.com",
        "SECRET_KEY": "",
        "ENCRYPTION_KEY": "",
    },
}
"""What each example sets: what must be set there, and what helps there."""

_HEAD = """\
# Workroom's settings{occasion}: copy this file to {target}.
# Made by `python -m app config example{option}`
# from app/core/config/; a test compares the two.
#
# A value comes from, the first that has it: the environment, a file named by
# <NAME>_FILE (for secrets), .env.<ENVIRONMENT>, .env, the default. A line that begins
# with # shows the default. Fresh keys: `python -m app keys generate`.
"""


def file_name(environment: Occasion | None = None) -> str:
    return f".env.{environment}.example" if environment else ".env.example"


def render(environment: Occasion | None = None) -> str:
    """The example for an environment, or the general one."""
    values = _SET[environment]
    parts = [
        _HEAD.format(
            occasion=f" in {environment}" if environment else "",
            target=f".env.{environment}" if environment else ".env",
            option=f" --environment {environment}" if environment else "",
        )
    ]
    group = ""
    for name, (owner, info) in variables().items():
        if owner != group:
            group = owner
            title = _TITLES[group]
            parts.append(f"\n# {title}\n# {'-' * len(title)}\n")
        parts.append(_entry(name, info, values.get(name)))
    return "".join(parts)


def _entry(name: str, info: FieldInfo, value: str | None) -> str:
    meaning = str(info.description)
    if not all(choice in meaning for choice in choices(info)):
        meaning += f" One of {', '.join(choices(info))}."
    comment = fill(meaning, 88, initial_indent="# ", subsequent_indent="# ")
    line = f"#{name}={plain(info.default)}" if value is None else f"{name}={value}"
    return f"{comment}\n{line}\n\n"


def plain(value: Any) -> str:
    """A setting's value as one writes it into `.env`."""
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case tuple():
            return ",".join(value)
        case SecretStr():
            return value.get_secret_value()
        case _ if value is PydanticUndefined:
            return ""
        case _:
            return str(value)


def fresh_keys() -> dict[str, str]:
    """New random values of the two settings that every installation must have."""
    return {
        "SECRET_KEY": secrets.token_urlsafe(48),
        "ENCRYPTION_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    }


def examples() -> dict[str, str]:
    """Every example: its file in the root of the tree, and its text."""
    return {file_name(name): render(name) for name in _SET}
