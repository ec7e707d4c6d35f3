from decimal import ROUND_CEILING, ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.integrations.llm.base import Prices, Usage
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.pricing import cost, most

PRICES = Prices(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"))

PRICE = st.decimals(0, 10**4, places=7, allow_nan=False, allow_infinity=False)
TOKENS = st.integers(0, 10**8)


@given(
    prices=st.builds(Prices, PRICE, PRICE, PRICE, PRICE),
    usage=st.builds(Usage, TOKENS, TOKENS, TOKENS, TOKENS),
)
def test_costs_are_exact_to_the_last_digit_of_any_price(
    prices: Prices, usage: Usage
) -> None:
    """TRUST M2: what is computed in whole numbers is what decimals come to."""
    written = usage.output_tokens * prices.output
    exact = (
        usage.input_tokens * prices.input
        + written
        + usage.cache_read_tokens * prices.cache_read
        + usage.cache_write_tokens * prices.cache_write
    )
    dearest = max(prices.input, prices.cache_read, prices.cache_write)
    bound = usage.input_tokens * dearest + written

    assert cost(usage, prices) == int(exact.quantize(Decimal(1), ROUND_HALF_UP))
    assert most(usage.input_tokens, usage.output_tokens, prices) == int(
        bound.quantize(Decimal(1), ROUND_CEILING)
    )


def test_a_dollar_for_a_million_tokens_is_a_credit_for_each() -> None:
    assert cost(Usage(1_000_000, 0), PRICES) == 3_000_000
    assert cost(Usage(0, 1_000_000), PRICES) == 15_000_000
    assert cost(Usage(0, 0, cache_read_tokens=1_000_000), PRICES) == 300_000
    assert cost(Usage(0, 0, cache_write_tokens=1_000_000), PRICES) == 3_750_000


@pytest.mark.parametrize(
    ("usage", "credits_"),
    [
        (Usage(0, 0), 0),
        (Usage(0, 0, cache_read_tokens=1), 0),  # 0.3
        (Usage(0, 0, cache_read_tokens=5), 2),  # 1.5
        (Usage(0, 0, cache_write_tokens=2), 8),  # 7.5
        (Usage(0, 0, cache_read_tokens=1, cache_write_tokens=1), 4),  # 0.3 + 3.75
    ],
)
def test_halves_are_rounded_up_once_at_the_end(usage: Usage, credits_: int) -> None:
    assert cost(usage, PRICES) == credits_


def test_a_model_without_prices_costs_nothing() -> None:
    assert cost(Usage(1_000_000, 1_000_000), None) == 0


def test_a_known_model_is_billed_by_the_catalogue() -> None:
    info = Catalogue.load().info("bedrock/us.anthropic.claude-sonnet-4-6")

    # 3 and 15 dollars, and 10 % more outside of the global inference profile.
    assert cost(Usage(1000, 200), info.prices) == 3300 + 3300


def test_the_most_takes_the_dearest_price_of_input_and_rounds_up() -> None:
    prices = Prices(
        input=Decimal(3),
        output=Decimal(15),
        cache_read=Decimal("0.3"),
        cache_write=Decimal("3.75"),
    )

    assert most(10, 2, prices) == 68  # 37.5 and 30
    assert most(0, 0, prices) == 0
    assert most(10**6, 10**6, None) == 0
    for usage in (Usage(10, 2), Usage(0, 2, cache_write_tokens=10), Usage(7, 1, 3)):
        assert cost(usage, prices) <= most(10, 2, prices)
