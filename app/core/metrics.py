"""What is counted, for Prometheus; the label sets are small and closed."""

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


def exposition(shared: str) -> bytes:
    """The text for Prometheus; `shared` is the folder of several processes' counts."""
    registry = REGISTRY
    if shared:
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=shared)  # type: ignore[no-untyped-call]  # the library's
    return generate_latest(registry)
