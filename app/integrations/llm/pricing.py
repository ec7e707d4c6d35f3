"""What a call costs, in credits: a credit is one millionth of a US dollar."""

from functools import lru_cache
from math import lcm
from typing import NamedTuple

from app.integrations.llm.base import Prices, Usage


def cost(usage: Usage, prices: Prices | None) -> int:
    """Credits for that usage, rounded half up once, at the end.

    A dollar for a million tokens is a credit for each, so no scaling is needed. A
    model without prices costs nothing.
    """
    if prices is None:
        return 0
    whole = _in_whole(prices)
    exact = (
        usage.input_tokens * whole.input
        + usage.output_tokens * whole.output
        + usage.cache_read_tokens * whole.cache_read
        + usage.cache_write_tokens * whole.cache_write
    )
    return (2 * exact + whole.of_a_credit) // (2 * whole.of_a_credit)


def most(input_tokens: int, output_tokens: int, prices: Prices | None) -> int:
    """The credits that a call of so many tokens can cost at the most.

    A provider decides what of the input it writes into its cache, which is dearer.
    """
    if prices is None:
        return 0
    whole = _in_whole(prices)
    exact = input_tokens * whole.dearest + output_tokens * whole.output
    return -(-exact // whole.of_a_credit)  # rounded up


class _Whole(NamedTuple):
    """Prices as whole numbers of such a part of a credit that all of them are exact."""

    of_a_credit: int
    input: int
    output: int
    cache_read: int
    cache_write: int
    dearest: int


@lru_cache(maxsize=4096)
def _in_whole(prices: Prices) -> _Whole:
    """Once for each model: decimals would cost every call twice as much."""
    each = (prices.input, prices.output, prices.cache_read, prices.cache_write)
    ratios = [price.as_integer_ratio() for price in each]
    of_a_credit = lcm(*(below for _, below in ratios))
    input_, output, read, written = (
        above * (of_a_credit // below) for above, below in ratios
    )
    dearest = max(input_, read, written)
    return _Whole(of_a_credit, input_, output, read, written, dearest)
