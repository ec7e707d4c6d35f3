"""The catalogue: what is known of each model, its prices above all.

Ours is `catalogue.toml`, which says what the fields mean; an installation's own file
(MODEL_CATALOGUE) is laid over it, field by field.
"""

import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    TypeAdapter,
    ValidationError,
)

from app.core.config import ConfigError
from app.integrations.llm.base import ModelInfo, Prices

OURS = Path(__file__).with_name("catalogue.toml")

_PROFILE = re.compile(
    r"^bedrock/(?:arn:.*/)?(?:(global|us|us-gov|eu|apac|au|ca|in|jp)\.)?"
)
_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Price = Annotated[Decimal, Field(ge=0)]


class _Prices(_Table):
    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write: Price | None = None


class _Entry(_Table):
    """A model's facts; the defaults are those of a model that nobody has described."""

    context_window: int = Field(32_768, ge=1)
    max_output_tokens: int = Field(4096, ge=1)
    capabilities: frozenset[str] = frozenset({"text"})
    prices: _Prices | None = None
    regional_factor: Price = Decimal(1)


_Name = Annotated[str, StringConstraints(pattern=r"^[a-z]+/\S+$")]
_Entries = TypeAdapter(dict[_Name, _Entry])


def base_name(name: str) -> str:
    """The catalogue's name of a model: without region and ARN, on Bedrock.

    So `bedrock/eu.anthropic.claude-opus-5` and the inference profile's ARN are both
    `bedrock/anthropic.claude-opus-5`.
    """
    return _PROFILE.sub("bedrock/", name)


class Catalogue:
    def __init__(self, entries: Mapping[str, _Entry]) -> None:
        self._entries = entries

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Ours, with the file at `path` laid over it.

        Raises ConfigError naming MODEL_CATALOGUE and the wrong entry.
        """
        entries = dict(_ours())
        for name, fields in _read(path).items() if path else ():
            entries[name] = {**entries.get(name, {}), **fields}
        try:
            return cls(_Entries.validate_python(entries))
        except ValidationError as error:
            raise ConfigError("\n".join(map(_explain, error.errors()))) from error

    def info(self, name: str) -> ModelInfo:
        """What is known of that model; of an unknown one, careful guesses."""
        entry = self._entry(name)
        return ModelInfo(
            name=name,
            context_window=entry.context_window,
            max_output_tokens=entry.max_output_tokens,
            capabilities=entry.capabilities,
            prices=_scaled(entry.prices, _factor(name, entry)),
        )

    def names(self, provider: str) -> list[str]:
        """The models described of a provider; the one to start with comes first."""
        return [name for name in self._entries if name.startswith(f"{provider}/")]

    def entry_name(self, name: str) -> str | None:
        """The name of the entry that describes a model; None where none does.

        One of that very name goes first; a dated snapshot has its model's.
        """
        base = base_name(name)
        candidates = (name, base, _SNAPSHOT.sub("", base))
        return next((c for c in candidates if c in self._entries), None)

    def _entry(self, name: str) -> _Entry:
        described = self.entry_name(name)
        return self._entries[described] if described else _Entry()


def _factor(name: str, entry: _Entry) -> Decimal:
    profile = _PROFILE.match(name)
    if profile is None or profile[1] == "global":
        return Decimal(1)
    return entry.regional_factor


def _scaled(prices: _Prices | None, factor: Decimal) -> Prices | None:
    if prices is None:
        return None
    read = prices.input if prices.cache_read is None else prices.cache_read
    written = prices.input if prices.cache_write is None else prices.cache_write
    return Prices(
        input=prices.input * factor,
        output=prices.output * factor,
        cache_read=read * factor,
        cache_write=written * factor,
    )


@cache
def _ours() -> dict[str, Any]:
    return _read(OURS)


def _read(path: Path) -> dict[str, Any]:
    try:
        entries = tomllib.loads(path.read_text("utf-8"), parse_float=Decimal)
    except OSError as error:
        raise ConfigError(
            f"MODEL_CATALOGUE: cannot read {path} ({error.strerror}): name a file that "
            "this user may read"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"MODEL_CATALOGUE: {path} is no TOML: {error}") from error
    for name, fields in entries.items():
        if not isinstance(fields, dict):
            raise ConfigError(
                f"MODEL_CATALOGUE: {name}: write each model as a table of its own, "
                'such as ["openai/gpt-4.1"]'
            )
    return entries


def _explain(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"] if part != "[key]")
    return f"MODEL_CATALOGUE: {place}: {error['msg']}"
