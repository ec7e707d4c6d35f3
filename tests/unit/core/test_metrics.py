"""Quick counts are the library's, told later."""

from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from app.core.metrics import pass_on, quick, quick_histogram


def told(make: Callable[[CollectorRegistry], Any], values: list[float]) -> bytes:
    registry = CollectorRegistry()
    add = make(registry)
    for number, value in enumerate(values):
        add(value)
        if number % 3 == 0:
            pass_on()
    pass_on()
    lines = generate_latest(registry).splitlines()
    return b"\n".join(line for line in lines if b"_created" not in line)


@given(st.lists(st.floats(0, 4).map(lambda f: round(f * 64) / 64)))
def test_times_are_sorted_as_the_library_sorts_them(values: list[float]) -> None:
    def histogram(registry: CollectorRegistry) -> Histogram:
        return Histogram("h", "h", ["a"], buckets=(0.5, 1, 2), registry=registry)

    plain = told(lambda r: histogram(r).labels("x").observe, values)
    ours = told(lambda r: quick_histogram(histogram(r))("x").observe, values)

    assert ours == plain


@given(st.lists(st.integers(0, 1000)))
def test_counts_are_passed_on_whole(values: list[float]) -> None:
    def counter(registry: CollectorRegistry) -> Counter:
        return Counter("c", "c", ["a"], registry=registry)

    plain = told(lambda r: counter(r).labels("x").inc, values)
    ours = told(lambda r: quick(counter(r))("x").inc, values)

    assert ours == plain
