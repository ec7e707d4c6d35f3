"""Where on AWS a call of Bedrock may go: regions, and inference profiles in them.

A prompt goes to no region that the operator has not named, and around the world only
where they allow it or the model's name says so. Of a profile, its geography says in
which regions calls are answered (reference: "Supported Regions and models for inference
profiles" in Amazon Bedrock's user guide).
"""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import NamedTuple, TypeVar

import structlog

from app.core.config import ModelSettings
from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderRejectedError,
)
from app.integrations.llm.catalogue import profile_of
from app.integrations.llm.cooldown import Cooldown

LACKING_SECONDS = 300.0
"""How long a place is believed to lack a model."""

HOME_PROFILES = {"us-gov-": "us-gov", "us-": "us", "eu-": "eu"}
"""Of the geographies whose profiles Workroom offers models by, by region."""

_PROFILES = {
    **{region: (profile,) for region, profile in HOME_PROFILES.items()},
    "ca-": ("ca",),
    "ap-northeast-1": ("jp", "apac"),
    "ap-northeast-3": ("jp", "apac"),
    "ap-southeast-2": ("au", "apac"),
    "ap-southeast-4": ("au", "apac"),
    "ap-south-": ("in", "apac"),
    "ap-": ("apac",),
}
"""What a region may call a model by; the first that fits counts."""

_MOST_REMEMBERED = 1000
_log = structlog.get_logger(__name__)

T = TypeVar("T")


class ModelLackingError(ProviderRejectedError):
    """A region does not have the model, or not by this profile."""


class Place(NamedTuple):
    region: str
    model: str


class Places:
    def __init__(self, models: ModelSettings) -> None:
        self._home = models.aws_region
        self._regions = dict.fromkeys((self._home, *models.bedrock_fallback_regions))
        self._global = models.bedrock_global_profiles
        self._profiled = models.bedrock_endpoint == "runtime"
        self._cooldowns: dict[Place, Cooldown] = {}

    async def first(
        self,
        model: str,
        call: Callable[[Place], AsyncGenerator[T]],
        *,
        begun: Callable[[T], bool],
    ) -> AsyncGenerator[T]:
        """The items of the first place that answers; an answer is `begun` by an item.

        What only this region, or its account there, cannot do is tried in the next; a
        call that is wrong at home is wrong. Raises the first error after which a later
        try may go through, or else the first of all.
        """
        errors: list[ProviderError] = []
        for place in self._in_order(model):
            cooldown = self._cooldown(place)
            cooldown.begin(time.monotonic())
            started = False
            try:
                async with aclosing(call(place)) as items:
                    async for item in items:
                        if not started and begun(item):
                            started = True
                            cooldown.answered()
                        yield item
            except ProviderError as error:
                _note(cooldown, error)
                if started or not self._is_worth_another(error, place):
                    raise
                errors.append(error)
                _log.info("bedrock_place_failed", **place._asdict(), code=error.code)
            else:
                cooldown.succeeded()
                return
        raise next((error for error in errors if error.retryable), errors[0])

    def _in_order(self, model: str) -> list[Place]:
        """All of them; what cools down goes last."""
        now = time.monotonic()
        places = self.of(model)
        return sorted(places, key=lambda place: self._cooldown(place).cools(now))

    def of(self, model: str) -> list[Place]:
        """Where the model may be called, the region of the installation first."""
        profile, plain = profile_of(model)
        if model.startswith("arn:"):
            return [Place(self._home, model)]
        if not self._profiled or profile in {"", "global"}:
            return [Place(region, model) for region in self._regions]
        named = [] if profile in _profiles(self._home) else [profile]
        found = []
        for region in self._regions:
            # Who named another geography than the home's own meant it.
            if region == self._home:
                found.append(Place(region, model))
            else:
                found += [
                    Place(region, f"{one}.{plain}")
                    for one in _profiles(region)
                    if not named or one in named
                ]
            if self._global and not named:
                found.append(Place(region, f"global.{plain}"))
        return found

    def _is_worth_another(self, error: ProviderError, place: Place) -> bool:
        if isinstance(error, (ModelLackingError, ProviderAuthError)):
            return True
        # Elsewhere it was taken, or never judged: what is wrong may be the place.
        elsewhere = place.region != self._home and isinstance(
            error, ProviderRejectedError
        )
        return error.retryable or elsewhere

    def _cooldown(self, place: Place) -> Cooldown:
        found = self._cooldowns.get(place)
        if found is None:
            if len(self._cooldowns) >= _MOST_REMEMBERED:
                self._cooldowns.clear()
            found = self._cooldowns[place] = Cooldown()
        return found


def _note(cooldown: Cooldown, error: ProviderError) -> None:
    now = time.monotonic()
    if isinstance(error, ModelLackingError):
        cooldown.pause(LACKING_SECONDS, now)
    elif isinstance(error, ProviderRejectedError):
        cooldown.answered()
    else:
        cooldown.failed(error, now)


def _profiles(region: str) -> tuple[str, ...]:
    return next((p for start, p in _PROFILES.items() if region.startswith(start)), ())
