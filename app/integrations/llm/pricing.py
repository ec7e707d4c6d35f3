"""What a call costs, in credits: a credit is one millionth of a US dollar."""

from decimal import ROUND_HALF_UP, Decimal

from app.integrations.llm.base import Prices, Usage


def cost(usage: Usage, prices: Prices | None) -> int:
    """Credits for that usage, rounded half up once, at the end.

    A dollar for a million tokens is a credit for each, so no scaling is needed. A
    model without prices costs nothing.
    """
    if prices is None:
        return 0
    exact = (
        usage.input_tokens * prices.input
        + usage.output_tokens * prices.output
        + usage.cache_read_tokens * prices.cache_read
        + usage.cache_write_tokens * prices.cache_write
    )
    return int(exact.quantize(Decimal(1), ROUND_HALF_UP))
