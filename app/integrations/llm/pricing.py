"""What a call costs, in credits: a credit is one millionth of a US dollar."""

from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

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


def most(input_tokens: int, output_tokens: int, prices: Prices | None) -> int:
    """The credits that a call of so many tokens can cost at the most.

    A provider decides what of the input it writes into its cache, which is dearer.
    """
    if prices is None:
        return 0
    dearest = max(prices.input, prices.cache_read, prices.cache_write)
    exact = input_tokens * dearest + output_tokens * prices.output
    return int(exact.quantize(Decimal(1), ROUND_CEILING))
