"""Routes over a provider that does what a script says, by a clock that stands."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field

from app.integrations.llm.base import (
    ChatRequest,
    ModelInfo,
    ProviderError,
    ProviderEvent,
    ProviderThrottledError,
    ProviderUnavailableError,
    Stop,
    TextDelta,
    Usage,
    is_answer,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.routes import Deployment, Route
from app.integrations.llm.routing import Candidate, Router
from tests.unit.integrations.llm.calls import Outcome, ask, outcome
from tests.unit.integrations.llm.clock import Clock

GOOD = (Usage(1, 0), TextDelta("Yes"), Stop("end_turn"))
BUSY = ProviderThrottledError("busy")
AWAY = ProviderUnavailableError("away")
IDS = ("a", "b", "c", "d")
A, B, C, D = (f"test/{name}" for name in IDS)


@dataclass
class Silence:
    """A step that takes until then, which mostly never comes."""

    until: asyncio.Event = field(default_factory=asyncio.Event)


Steps = Sequence[ProviderEvent | ProviderError | Silence]


@dataclass
class Scripted:
    """What each call of a model does in turn: events, and the error where it ends.

    A model that has no more to do answers well.
    """

    name: str = "test"
    missing: str | None = None
    ids: Sequence[str] = IDS
    calls: dict[str, list[Steps]] = field(default_factory=dict)
    called: list[str] = field(default_factory=list)
    asked: int = 0
    closed: int = 0
    begun: asyncio.Event = field(default_factory=asyncio.Event)

    async def models(self) -> list[ModelInfo]:
        self.asked += 1
        return [Catalogue.load().info(f"{self.name}/{one}") for one in self.ids]

    async def stream(self, request: ChatRequest) -> AsyncGenerator[ProviderEvent]:
        self.called.append(request.model)
        self.begun.set()
        planned = self.calls.get(request.model)
        try:
            for step in planned.pop(0) if planned else GOOD:
                if isinstance(step, Silence):
                    await step.until.wait()
                    continue
                if isinstance(step, ProviderError):
                    raise step
                yield step
        finally:
            self.closed += 1

    async def close(self) -> None: ...


@dataclass
class House:
    router: Router
    provider: Scripted
    clock: Clock
    catalogue: Catalogue

    async def names(self, name: str, tokens: int = 0) -> list[str]:
        found = await self.router.candidates(name, tokens=tokens)
        return [candidate.model.name for candidate in found]

    def events(
        self, candidates: Sequence[Candidate], tokens: int = 0
    ) -> AsyncGenerator[ProviderEvent]:
        def call(candidate: Candidate) -> AsyncGenerator[ProviderEvent]:
            return self.provider.stream(ask(candidate.model.id))

        return self.router.routed(candidates, call, begun=is_answer, tokens=tokens)

    async def run(self, name: str = A, tokens: int = 0) -> Outcome:
        candidates = await self.router.candidates(name, tokens=tokens)
        return await outcome(self.events(candidates, tokens))

    def plan(self, **calls: list[Steps]) -> None:
        self.provider.calls.update(calls)


Build = Callable[..., House]


def route(*models: str, fallbacks: Sequence[str] = ()) -> Route:
    """Of deployments that are tried in this order."""
    deployments = [Deployment(model, priority=n) for n, model in enumerate(models)]
    return Route(deployments, fallbacks)
