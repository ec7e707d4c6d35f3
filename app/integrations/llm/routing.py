"""Routes: which deployments a model's name stands for, and calling them until one does.

A *route* is a name of the installation's own that stands for several deployments of
models; every other name stands for one, itself. Until the first token nothing of an
answer has been seen or paid for, so that a call which failed may be made again, by
another deployment or by the same; after it, never: the text would come twice. This is
the one place that calls again. Why it works as it does: docs/adr/0020.
"""

import asyncio
import random
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TypeVar

import structlog

from app.core.exceptions import AppError
from app.core.metrics import MODEL_CALLS, MODEL_COOLDOWNS, quick
from app.integrations.llm.base import (
    ModelInfo,
    Provider,
    ProviderError,
    ProviderRejectedError,
    ProviderThrottledError,
    ProviderTimeoutError,
)
from app.integrations.llm.bucket import Buckets
from app.integrations.llm.catalogue import base_name
from app.integrations.llm.cooldown import Cooldown
from app.integrations.llm.idle import idle
from app.integrations.llm.patience import in_time, whole_in_time
from app.integrations.llm.registry import Providers, Purpose, unfit
from app.integrations.llm.routes import Deployment, Route, as_one, drawn

BACKOFF_SECONDS = 0.5
"""The longest pause before a second try; it doubles with each further one."""

LONGEST_BACKOFF = 8.0

LONGEST_WAIT = 20.0
"""Where a provider asks for a longer pause, it is not called again."""

_MOST_REMEMBERED = 10_000
_log = structlog.get_logger(__name__)

# Of each there are few: models by their names in the catalogue, times outcomes.
_calls = quick(MODEL_CALLS)
_cooldowns = cache(MODEL_COOLDOWNS.labels)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model that may take a call, for the name that was asked for."""

    provider: Provider
    model: ModelInfo
    asked: str
    timeout: float | None = None
    cooldown: Cooldown = field(default_factory=Cooldown, repr=False, compare=False)
    buckets: Buckets | None = field(default=None, repr=False, compare=False)

    def count(self, tokens: int) -> None:
        """Of a call that took so many more than were known when it began."""
        if self.buckets is not None:
            self.buckets.take_tokens(tokens)


class Router:
    """`retries` is how often a call is made again where one model is all there is."""

    def __init__(
        self,
        providers: Providers,
        *,
        retries: int,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.providers = providers
        self.retries = retries
        self._clock = clock
        self.sleep = sleep
        self._chance = chance
        self._routes: dict[str, Route] = {}
        self._cooldowns: dict[str, Cooldown] = {}
        self._buckets: dict[tuple[str, Deployment], Buckets] = {}

    # What admins made

    def register(self, routes: Mapping[str, Route]) -> None:
        """Have these be all routes."""
        self._routes = dict(routes)
        kept = {(name, d) for name, r in routes.items() for d in r.deployments}
        self._buckets = {k: v for k, v in self._buckets.items() if k in kept}

    def register_one(self, name: str, route: Route | None) -> None:
        """Change one of them; None takes it away."""
        routes = {n: r for n, r in self._routes.items() if n != name}
        self.register(routes | ({} if route is None else {name: route}))

    def leads_to(self, route: str, model: str) -> bool:
        """Whether a call for that route may go to the model."""
        waiting, seen = [route], {route}
        while waiting:
            if (found := self._routes.get(waiting.pop())) is None:
                continue
            named = {*(d.model for d in found.deployments), *found.fallbacks}
            if model in named:
                return True
            waiting += named - seen
            seen |= named
        return False

    async def offered(self) -> list[ModelInfo]:
        """The routes that can be used now, each as if it were one model."""
        found = []
        for name, route in self._routes.items():
            of = [await self._resolved(d.model) for d in route.deployments]
            infos = [pair[1] for pair in of if not isinstance(pair, AppError)]
            if infos:
                found.append(as_one(name, infos))
        return found

    # What a call may go to

    async def candidates(
        self, name: str, *, tokens: int = 0, able: Purpose = "text"
    ) -> Sequence[Candidate]:
        """What to try, in that order; `tokens` is what the call takes at least.

        By priority, and among equals by chance and weight; then the fallbacks; last of
        all, in the same order, what is cooling down or has reached its limit. Raises
        what `Providers.resolve` does where nothing can be called that is `able`.
        """
        route = self._routes.get(name)
        if route is None:
            provider, model = await self.providers.resolve(name, able=able)
            cooldown = self._cooldown(model.name)
            return (Candidate(provider, model, name, cooldown=cooldown),)
        failures: list[AppError] = []
        found = await self._of_route(name, name, {name}, failures)
        once: dict[str, Candidate] = {}
        for candidate in found:
            if able in candidate.model.capabilities:
                once.setdefault(candidate.model.name, candidate)
        if not once:
            raise unfit(name, able) if found else failures[0]
        return sorted(once.values(), key=lambda one: self._rests(one, tokens))

    def _rests(self, candidate: Candidate, tokens: int) -> bool:
        """Whether others should be called first."""
        buckets = candidate.buckets
        return candidate.cooldown.cools(self._clock()) or (
            buckets is not None and buckets.wait(tokens) > 0
        )

    async def _of_route(
        self, asked: str, name: str, seen: set[str], failures: list[AppError]
    ) -> list[Candidate]:
        """Of the route `name`, to which the one that was asked for leads.

        `seen` are those on the way here, for two changes at once can make a ring. Why
        models cannot be called is added to `failures`.
        """
        route, found = self._routes[name], []
        fallbacks = [Deployment(fallback) for fallback in route.fallbacks]
        for deployment in (*drawn(route.deployments, self._chance), *fallbacks):
            if deployment.model in self._routes:
                if deployment.model not in seen:
                    seen.add(deployment.model)
                    found += await self._of_route(
                        asked, deployment.model, seen, failures
                    )
                continue
            resolved = await self._resolved(deployment.model)
            if isinstance(resolved, AppError):
                failures.append(resolved)
                continue
            provider, model = resolved
            found.append(
                Candidate(
                    provider,
                    model,
                    asked,
                    deployment.timeout_seconds,
                    self._cooldown(model.name),
                    self._buckets_of(name, deployment),
                )
            )
        return found

    async def _resolved(self, name: str) -> tuple[Provider, ModelInfo] | AppError:
        try:
            return await self.providers.resolve(name, able=None)
        except AppError as error:
            return error

    def _cooldown(self, model: str) -> Cooldown:
        """By the model's name, so that all routes and its own learn of each other."""
        found = self._cooldowns.get(model)
        if found is None:
            if len(self._cooldowns) >= _MOST_REMEMBERED:
                self._cooldowns.clear()
            found = self._cooldowns[model] = Cooldown()
        return found

    def _buckets_of(self, route: str, deployment: Deployment) -> Buckets | None:
        requests, tokens = deployment.requests_per_minute, deployment.tokens_per_minute
        if requests is None and tokens is None:
            return None
        key = (route, deployment)
        if key not in self._buckets:
            self._buckets[key] = Buckets(requests, tokens, clock=self._clock)
        return self._buckets[key]

    # Calling

    async def routed(
        self,
        candidates: Sequence[Candidate],
        call: Callable[[Candidate], AsyncGenerator[T]],
        *,
        begun: Callable[[T], bool],
        tokens: int = 0,
    ) -> AsyncGenerator[T]:
        """The items of the first call that answers; an answer is `begun` by an item.

        Every candidate is called once, without a pause. Where these were fewer calls
        than `retries` allow, those for which it may help are called again, after a
        pause. A timeout is a reason to call another one, but never the same: whoever
        asked has waited long enough, and the provider may still be at work. What a
        provider rejects is wrong, whoever gets it. Raises the last error.
        """
        tries = _Tries(self, candidates)
        while True:
            candidate = await tries.next()
            started = False
            try:
                self._begin(candidate, tokens)
                items = call(candidate)
                if (limit := candidate.timeout) is not None:
                    items = in_time(items, limit, candidate.model.name, begun=begun)
                try:
                    async for item in items:
                        if not started and begun(item):
                            started = True
                            candidate.cooldown.answered()
                        yield item
                finally:
                    await items.aclose()
            except ProviderError as error:
                tries.failed(candidate, error, started=started)
            else:
                self._succeeded(candidate)
                return

    async def answered(
        self,
        candidates: Sequence[Candidate],
        call: Callable[[Candidate], Awaitable[T]],
        *,
        tokens: int = 0,
    ) -> T:
        """The same for answers that come as a whole."""
        tries = _Tries(self, candidates)
        while True:
            candidate = await tries.next()
            try:
                self._begin(candidate, tokens)
                answer = call(candidate)
                if (limit := candidate.timeout) is not None:
                    answer = whole_in_time(answer, limit, candidate.model.name)
                whole = await answer
            except ProviderError as error:
                tries.failed(candidate, error)
            else:
                self._succeeded(candidate)
                return whole

    def _begin(self, candidate: Candidate, tokens: int) -> None:
        if candidate.buckets is not None:
            if wait := candidate.buckets.wait(tokens):
                raise DeploymentLimitError(
                    f"{candidate.model.name} has been asked for as much as "
                    f"{candidate.asked} may: try again later.",
                    retry_after=wait,
                )
            candidate.buckets.take(tokens)
        candidate.cooldown.begin(self._clock())

    def _succeeded(self, candidate: Candidate) -> None:
        candidate.cooldown.succeeded()
        _calls(base_name(candidate.model.name), "answered").inc()

    def failed(self, candidate: Candidate, error: ProviderError) -> None:
        if isinstance(error, DeploymentLimitError):
            return  # it was never called
        model = base_name(candidate.model.name)
        _calls(model, error.code).inc()
        if isinstance(error, ProviderRejectedError):
            candidate.cooldown.answered()  # it is well: the call was wrong
        elif candidate.cooldown.failed(error, self._clock()):
            _cooldowns(model).inc()
            _log.warning(
                "model_cools_down", model=candidate.model.name, code=error.code
            )

    def backoff(self, again: int, error: ProviderError) -> float:
        """With full jitter: a random part, so that callers refused together part."""
        longest: float = min(BACKOFF_SECONDS * 2**again, LONGEST_BACKOFF)
        return max(self._chance() * longest, error.retry_after or 0)


class _Tries:
    """Which candidate is called next, and whether that is worth it."""

    def __init__(self, router: Router, candidates: Sequence[Candidate]) -> None:
        self._router = router
        self._queue = deque(candidates)
        self._once = len(candidates)
        self._most = max(self._once, router.retries + 1)
        self._number = 0
        self._pauses: dict[str, float] = {}

    async def next(self) -> Candidate:
        candidate = self._queue.popleft()
        if self._number >= self._once:
            with idle():
                await self._router.sleep(self._pauses[candidate.model.name])
        self._number += 1
        return candidate

    def failed(
        self, candidate: Candidate, error: ProviderError, *, started: bool = False
    ) -> None:
        """Raises the error where there is no other to call, or no use in that."""
        self._router.failed(candidate, error)
        if started or isinstance(error, ProviderRejectedError):
            raise error
        if _worthwhile(error):
            rounds = (self._number - 1) // self._once
            self._pauses[candidate.model.name] = self._router.backoff(rounds, error)
            self._queue.append(candidate)
        if not self._queue or self._number == self._most:
            raise error
        _log.warning(
            "provider_called_again",
            asked=candidate.asked,
            failed=candidate.model.name,
            code=error.code,
            next=self._queue[0].model.name,
        )


class DeploymentLimitError(ProviderThrottledError):
    """A deployment would be asked for more than its route allows it in a minute."""


def _worthwhile(error: ProviderError) -> bool:
    """Whether the same model may be called again."""
    return (
        error.retryable
        and not isinstance(error, ProviderTimeoutError)
        and (error.retry_after or 0) <= LONGEST_WAIT
    )
