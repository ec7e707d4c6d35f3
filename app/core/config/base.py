"""What every area of settings is made with."""

import ipaddress
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

ROOT = Path(__file__).resolve().parents[3]
"""The checkout: where `docs/` and `alembic/` are."""


MOST_DAYS = 36_500
"""A century: what goes on for longer, the calendar cannot tell everywhere."""


class ConfigError(Exception):
    """Settings that cannot work; each line names a variable and the mend."""


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in (p.strip() for p in value.split(",")) if part)
    return value


List = Annotated[tuple[str, ...], BeforeValidator(_split)]


def _networks(ranges: tuple[str, ...]) -> tuple[str, ...]:
    for one in ranges:
        try:
            ipaddress.ip_network(one, strict=False)
        except ValueError:
            raise ValueError(
                f"{one} is no address or CIDR range, such as 10.0.0.0/8"
            ) from None
    return ranges


Networks = Annotated[List, AfterValidator(_networks)]


class Group(BaseModel):
    """One area of settings; a field's alias is the name of its variable."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False
    )
