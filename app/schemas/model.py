from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.schemas.base import ReadModel

_MOST_TOKENS = 2**31 - 1

Capability = Literal[
    "text",
    "vision",
    "documents",
    "tools",
    "thinking",
    "prompt_caching",
    "prefill",
    "embeddings",
    "reranking",
]
NewModelName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z]+/[!-~]+$", max_length=200),
    Field(description="provider/id; the id is the provider's own, and may hold `/`."),
]
Tokens = Annotated[int, Field(ge=1, le=_MOST_TOKENS)]
Price = Annotated[
    Decimal,
    Field(ge=0, le=1_000_000, max_digits=16, decimal_places=9),
]


class PricesRead(ReadModel):
    """US dollars for a million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal


class ModelRead(ReadModel):
    """A model, or a route: what all of its deployments can do, at the dearest price."""

    name: str
    provider: str = Field(description="`route` of a route.")
    capabilities: list[str]
    context_window: int
    max_output_tokens: int
    dimensions: int | None
    prices: PricesRead | None
    available: bool


class PricesGiven(ReadModel):
    """US dollars for a million tokens; cached ones cost what input costs, if unsaid."""

    model_config = ConfigDict(from_attributes=True, extra="forbid")

    input: Price
    output: Price
    cache_read: Price | None = None
    cache_write: Price | None = None


class ModelFacts(BaseModel):
    """Null, or left out, is what the catalogue and the provider tell."""

    model_config = ConfigDict(extra="forbid")

    context_window: Tokens | None = None
    max_output_tokens: Tokens | None = None
    capabilities: frozenset[Capability] | None = None
    prices: PricesGiven | None = None


class ModelCreate(ModelFacts):
    name: NewModelName
    enabled: bool = Field(True, description="False takes it out of the offer.")


class ModelUpdate(ModelFacts):
    """Fields that are left out stay as they are."""

    enabled: bool | None = None


class RegisteredRead(ReadModel):
    """What admins said of a model; null where they left a fact as it is."""

    enabled: bool
    context_window: int | None
    max_output_tokens: int | None
    capabilities: list[str] | None
    prices: PricesGiven | None


class AdminModelRead(ModelRead):
    """A model as it counts, and what of that admins registered."""

    registered: RegisteredRead | None
