import pytest

from app.services.knowledge.search import fused


def test_rankings_are_fused_by_the_reciprocals_of_their_ranks() -> None:
    first = 2 / 61  # what is first in both

    scores = fused([[1, 2], [2, 3]])

    assert scores == {
        1: pytest.approx((1 / 61) / first),
        2: pytest.approx((1 / 62 + 1 / 61) / first),
        3: pytest.approx((1 / 62) / first),
    }
    assert fused([[7], [7]]) == {7: pytest.approx(1)}
    assert fused([[], [7]]) == {7: pytest.approx(0.5)}
