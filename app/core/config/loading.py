import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, get_args

from dotenv import dotenv_values
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from app.core.config.base import ConfigError
from app.core.config.rules import broken_rules
from app.core.config.settings import GROUPS, Settings


@lru_cache
def get_settings() -> Settings:
    return load_settings()


def load_settings(
    environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> Settings:
    """Read, merge and validate; raises ConfigError naming every wrong variable."""
    values, sources = _read(os.environ if environ is None else environ, directory)
    groups: dict[str, Any] = {}
    problems: list[str] = []
    for name, model in GROUPS.items():
        try:
            groups[name] = model.model_validate(values)
        except ValidationError as error:
            problems += [_explain(e) for e in error.errors()]
    if not problems:
        settings = Settings(**groups, sources=sources)
        problems = broken_rules(settings)
        if not problems:
            return settings
    raise ConfigError("\n".join(problems))


def is_first_start(
    environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> bool:
    """Whether keys may be made: development, no `.env`, no SECRET_KEY anywhere."""
    values, _ = _read(os.environ if environ is None else environ, directory)
    return (
        "SECRET_KEY" not in values
        and values.get("ENVIRONMENT", "development") == "development"
        and not os.path.lexists((directory or Path.cwd()) / ".env")
    )


def passed_on(names: Iterable[str]) -> dict[str, str]:
    """Those of these variables that are set, for a child process."""
    return {name: os.environ[name] for name in names if name in os.environ}


def variables() -> dict[str, tuple[str, FieldInfo]]:
    """Every setting: variable name to its group's name and its field."""
    return {
        info.alias: (group, info)
        for group, model in GROUPS.items()
        for info in model.model_fields.values()
        if info.alias
    }


def changed(settings: Settings, variable: str, value: Any) -> Settings:
    """The settings with another value; raises ConfigError where a start would."""
    group, _ = variables()[variable]
    area = getattr(settings, group)
    values = {**area.model_dump(by_alias=True), variable: value}
    try:
        area = type(area).model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(map(_explain, error.errors()))) from error
    settings = replace(settings, **{group: area})
    if problems := broken_rules(settings):
        raise ConfigError("\n".join(problems))
    return settings


def choices(info: FieldInfo) -> tuple[str, ...]:
    """The values a setting may take, where it is one of a few."""
    return tuple(a for a in get_args(info.annotation) if isinstance(a, str))


def _read(
    environ: Mapping[str, str], directory: Path | None
) -> tuple[dict[str, str], dict[str, str]]:
    folder = directory or Path.cwd()
    base = _env_file(folder / ".env")
    environment = environ.get("ENVIRONMENT") or base.get("ENVIRONMENT", "development")
    name = f".env.{environment}"
    special = _env_file(folder / name)
    layers = [(".env", base), (name, special), ("environment", dict(environ))]
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        for variable in variables():
            if layer.get(variable):
                values[variable], sources[variable] = layer[variable], source
            elif path := layer.get(f"{variable}_FILE"):
                values[variable] = _secret(variable, path)
                sources[variable] = f"{source}, file {path}"
    return values, sources


def _env_file(path: Path) -> dict[str, str]:
    """Its values, taken literally: a password may hold `${`. No file, no values."""
    try:
        # The signature that Windows editors write must not become part of a name.
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path.name}: cannot be read ({_reason(error)}): make it a text file in "
            "UTF-8 that this user may read"
        ) from error
    return {name: value for name, value in values.items() if value is not None}


def _secret(variable: str, path: str) -> str:
    try:
        value = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{variable}_FILE: cannot read {path} ({_reason(error)}): name a text "
            "file that this user may read"
        ) from error
    if not value:
        raise ConfigError(f"{variable}_FILE: {path} is empty: write the value into it")
    return value


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8"


def _explain(error: Any) -> str:
    variable = str(error["loc"][0])
    if error["type"] == "missing":
        return (
            f"{variable}: is not set: put it into .env "
            "(`python -m app keys generate` prints fresh keys)"
        )
    return f"{variable}: {error['msg'].removeprefix('Value error, ')}"
