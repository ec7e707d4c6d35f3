"""What is counted, for Prometheus; the label sets are small and closed."""

from bisect import bisect_left
from collections.abc import Callable
from functools import cache

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

TURNS_RUNNING = Gauge(
    "workroom_turns_running", "Replies being written", multiprocess_mode="livesum"
)
TURNS = Counter("workroom_turns", "Replies that ended", ["provider", "status"])
TOKENS = Counter("workroom_tokens", "Tokens used by replies", ["provider", "kind"])
FIRST_TOKEN = Histogram(
    "workroom_turn_first_token_seconds",
    "Time from a turn's start to the reply's first piece",
    ["provider"],
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)
GATEWAY_CALLS = Counter(
    "workroom_gateway_calls", "Calls by the gateway that ended", ["provider", "status"]
)
MODEL_CALLS = Counter(
    "workroom_model_calls",
    "Calls of models, each attempt of them, by `answered` or the error's code",
    ["model", "outcome"],
)
MODEL_COOLDOWNS = Counter(
    "workroom_model_cooldowns", "Pauses that models got after failures", ["model"]
)
REQUESTS_IN_PROGRESS = Gauge(
    "workroom_requests_in_progress",
    "Requests whose answer has not begun",
    multiprocess_mode="livesum",
)
LOOP_LAG = Gauge(
    "workroom_event_loop_lag_seconds",
    "How late the event loop was when last looked at",
    multiprocess_mode="livemax",
)
CREDITS = Counter(
    "workroom_credits",
    "Credits that calls of models cost, by who bears them",
    ["payer"],
)
JOBS = Counter("workroom_jobs", "Jobs that ran", ["name", "outcome"])


class Quick:
    """Counts for one of a metric's series, and passes on the sum now and then.

    For what each request counts, by its event loop's thread alone: the library takes a
    lock and four calls for each. Kept, not made for each count.
    """

    def __init__(self, series: Counter | Gauge) -> None:
        self._series = series
        self._sum = 0
        _quick.append(self)

    def inc(self, amount: int = 1) -> None:
        self._sum += amount

    def pass_on(self) -> None:
        if self._sum:
            amount, self._sum = self._sum, 0
            self._series.inc(amount)


class QuickHistogram:
    """The same for times: each is sorted into its bucket, and no more."""

    def __init__(self, series: Histogram) -> None:
        self._series = series
        self._bounds = series._upper_bounds  # noqa: SLF001 - the library asks for each time by itself
        self._counts = [0] * len(self._bounds)
        self._sum = 0.0
        _quick.append(self)

    def observe(self, seconds: float) -> None:
        self._counts[bisect_left(self._bounds, seconds)] += 1
        self._sum += seconds

    def pass_on(self) -> None:
        if not any(self._counts):
            return
        counts, self._counts = self._counts, [0] * len(self._bounds)
        total, self._sum = self._sum, 0.0
        for bucket, count in zip(self._series._buckets, counts, strict=True):  # noqa: SLF001 - as above
            bucket.inc(count)
        self._series._sum.inc(total)  # noqa: SLF001 - as above


_quick: list[Quick | QuickHistogram] = []


def pass_on() -> None:
    """Have every sum where the library counts."""
    for one in _quick:
        one.pass_on()


def quick(counter: Counter) -> Callable[..., Quick]:
    """In the place of `counter.labels`, for labels of which there are few."""
    return cache(lambda *labels: Quick(counter.labels(*labels)))


def quick_histogram(histogram: Histogram) -> Callable[..., QuickHistogram]:
    """The same."""
    return cache(lambda *labels: QuickHistogram(histogram.labels(*labels)))


def exposition(shared: str) -> bytes:
    """The text for Prometheus; `shared` is the folder of several processes' counts."""
    pass_on()
    registry = REGISTRY
    if shared:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=shared)  # type: ignore[no-untyped-call]  # the library's
    return generate_latest(registry)
