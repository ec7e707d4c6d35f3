"""What a route is: a name of the installation's own for several deployments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from app.integrations.llm.base import ModelInfo, Prices


@dataclass(frozen=True, slots=True)
class Deployment:
    """One of the models that a route stands for.

    Of those with the least `priority` each is first as often as its `weight` says. The
    limits hold in each process; `timeout_seconds` is to the first token.
    """

    model: str
    weight: int = 1
    priority: int = 0
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    timeout_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """`fallbacks` are models, or routes, for when all deployments have failed."""

    deployments: Sequence[Deployment]
    fallbacks: Sequence[str] = ()


def as_one(name: str, infos: Sequence[ModelInfo]) -> ModelInfo:
    """What can be relied on, whichever of these models takes a call.

    That is the least window and answer, what all can do, and the dearest prices.
    """
    if len(infos) == 1:
        return replace(infos[0], name=name)
    priced = [info.prices for info in infos if info.prices is not None]
    return ModelInfo(
        name=name,
        context_window=min(info.context_window for info in infos),
        max_output_tokens=min(info.max_output_tokens for info in infos),
        capabilities=frozenset.intersection(*(info.capabilities for info in infos)),
        prices=Prices(
            input=max(prices.input for prices in priced),
            output=max(prices.output for prices in priced),
            cache_read=max(prices.cache_read for prices in priced),
            cache_write=max(prices.cache_write for prices in priced),
        )
        if priced
        else None,
    )


def drawn(
    deployments: Sequence[Deployment], chance: Callable[[], float]
) -> list[Deployment]:
    """By priority, and among equals drawn by weight without replacement.

    A key of u^(1/w) for each draws so (Efraimidis and Spirakis, "Weighted random
    sampling with a reservoir", 2006).
    """
    return sorted(
        deployments, key=lambda d: (d.priority, -(chance() ** (1 / d.weight)))
    )
