"""What every area of settings is made with."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict

ROOT = Path(__file__).resolve().parents[3]
"""The checkout: where `docs/` and `alembic/` are."""


class ConfigError(Exception):
    """Settings that cannot work; each line names a variable and the mend."""


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in (p.strip() for p in value.split(",")) if part)
    return value


List = Annotated[tuple[str, ...], BeforeValidator(_split)]


class Group(BaseModel):
    """One area of settings; a field's alias is the name of its variable."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False
    )
