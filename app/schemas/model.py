from decimal import Decimal

from app.schemas.base import ReadModel


class PricesRead(ReadModel):
    """US dollars for a million tokens."""

    input: Decimal
    output: Decimal
    cache_read: Decimal
    cache_write: Decimal


class ModelRead(ReadModel):
    name: str
    provider: str
    capabilities: list[str]
    context_window: int
    max_output_tokens: int
    prices: PricesRead | None
    available: bool
