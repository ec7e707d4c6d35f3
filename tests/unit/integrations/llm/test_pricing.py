from decimal import Decimal

import pytest

from app.integrations.llm.base import Prices, Usage
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.pricing import cost, most

PRICES = Prices(Decimal(3), Decimal(15), Decimal("0.3"), Decimal("3.75"))


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
