"""The catalogue: what is known of each model, its prices above all.

Ours is `catalogue.toml`, which says what the fields mean; an installation's own file
(MODEL_CATALOGUE) is laid over it, field by field, and what admins register of a model
over both, and over what its provider tells.
"""

import re
import tomllib
from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from functools import cache, lru_cache
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
_REMEMBERED = 10_000
"""Names of models that are taken apart once: every call of a model looks at all."""
_SNAPSHOT = re.compile(r"-(?:\d{4}-\d{2}-\d{2}|\d{8})$")


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


Price = Annotated[Decimal, Field(ge=0)]


class PriceList(_Table):
    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write: Price | None = None


class _Entry(_Table):
    """A model's facts; the defaults are those of a model that nobody has described."""

    context_window: int = Field(32_768, ge=1)
    max_output_tokens: int = Field(4096, ge=0)
    capabilities: frozenset[str] = frozenset({"text"})
    dimensions: int | None = Field(None, ge=1)
    prices: PriceList | None = None
    regional_factor: Price = Decimal(1)


@dataclass(frozen=True, slots=True)
class Registration:
    """What admins say of a model; None leaves a fact as it is known otherwise."""

    enabled: bool = True
    context_window: int | None = None
    max_output_tokens: int | None = None
    capabilities: frozenset[str] | None = None
    prices: PriceList | None = None


_Name = Annotated[str, StringConstraints(pattern=r"^[a-z]+/\S+$")]
_Entries = TypeAdapter(dict[_Name, _Entry])


@lru_cache(_REMEMBERED)
def base_name(name: str) -> str:
    """The catalogue's name of a model: without region and ARN, on Bedrock.

    So `bedrock/eu.anthropic.claude-opus-5` and the inference profile's ARN are both
    `bedrock/anthropic.claude-opus-5`.
    """
    return _PROFILE.sub("bedrock/", name)


def profile_of(model: str) -> tuple[str, str]:
    """The inference profile that an id of Bedrock's names, if any, and the rest."""
    profile = _PROFILE.match(f"bedrock/{model}")
    if profile is None or profile[1] is None:
        return "", model
    return profile[1], f"bedrock/{model}"[profile.end() :]


class Catalogue:
    def __init__(self, entries: Mapping[str, _Entry]) -> None:
        self._entries = entries
        self._registered: dict[str, Registration] = {}
        self.changes = 0
        """How often admins changed what is registered, as far as is known here."""

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Ours, with the file at `path` laid over it.

        Raises ConfigError naming MODEL_CATALOGUE and the wrong entry.
        """
        entries = dict(_ours())
        for name, fields in _read(path).items() if path else ():
            entries[name] = {**entries.get(name, _by_name(name)), **fields}
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
            dimensions=entry.dimensions,
        )

    def names(self, provider: str) -> list[str]:
        """The models described of a provider; the one to start with comes first."""
        return [name for name in self._entries if name.startswith(f"{provider}/")]

    def entry_name(self, name: str) -> str | None:
        """The name of the entry that describes a model; None where none does.

        One of that very name goes first; a dated snapshot has its model's.
        """
        return _described(name, self._entries)

    # What admins registered

    def register(self, registered: Mapping[str, Registration]) -> None:
        """Have these be all that admins registered."""
        if registered != self._registered:
            self._registered = dict(registered)
            self.changes += 1

    def register_one(self, name: str, said: Registration | None) -> None:
        """Change one of them; None takes it away."""
        self._registered.pop(name, None)
        if said is not None:
            self._registered[name] = said
        self.changes += 1

    def registered_names(self, provider: str) -> list[str]:
        return [n for n in self._registered if n.startswith(f"{provider}/")]

    def withdrawn(self, name: str) -> bool:
        """Whether admins took it out of the offer."""
        found = _described(name, self._registered)
        return found is not None and not self._registered[found].enabled

    def current(self, info: ModelInfo) -> ModelInfo:
        """The model with what admins registered of it."""
        found = _described(info.name, self._registered)
        if found is None:
            return info
        return self.as_said(info, self._registered[found], by=found)

    def as_said(self, info: ModelInfo, said: Registration, *, by: str) -> ModelInfo:
        """The model if that were registered of it, under the name `by`.

        Prices are what a call by that very name costs; on Bedrock another region's
        profile costs more, as the catalogue says.
        """
        factor = Decimal(1)
        if by != info.name:
            factor = _factor(info.name, self._entry(info.name))
        window, longest = said.context_window, said.max_output_tokens
        return replace(
            info,
            context_window=info.context_window if window is None else window,
            max_output_tokens=info.max_output_tokens if longest is None else longest,
            capabilities=(
                info.capabilities if said.capabilities is None else said.capabilities
            ),
            prices=(
                info.prices if said.prices is None else _scaled(said.prices, factor)
            ),
        )

    def _entry(self, name: str) -> _Entry:
        described = self.entry_name(name)
        return self._entries[described] if described else _Entry(**_by_name(name))


def _by_name(name: str) -> dict[str, Any]:
    """What a model's name alone tells of it.

    Servers list models for embeddings among others, and mostly say no more of them:
    `nomic-embed-text`, `Qwen3-Embedding-8B`, `snowflake-arctic-embed2`; and those that
    rerank: `bge-reranker-v2-m3`. Nearly all that talk take tools, and a server whose
    model does not says so by itself.
    """
    if "rerank" in name.lower():
        return {"capabilities": ["reranking"], "max_output_tokens": 0}
    if "embed" in name.lower():
        return {"capabilities": ["embeddings"], "max_output_tokens": 0}
    return {"capabilities": ["text", "tools"]}


def _described(name: str, described: Container[str]) -> str | None:
    """Under which of these names something is said of the model."""
    return next((c for c in _names_of(name) if c in described), None)


@lru_cache(_REMEMBERED)
def _names_of(name: str) -> tuple[str, ...]:
    """Its own, the one without region, and that one without a date."""
    base = base_name(name)
    return name, base, _SNAPSHOT.sub("", base)


def _factor(name: str, entry: _Entry) -> Decimal:
    profile = _PROFILE.match(name)
    if profile is None or profile[1] == "global":
        return Decimal(1)
    return entry.regional_factor


def _scaled(prices: PriceList | None, factor: Decimal) -> Prices | None:
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
