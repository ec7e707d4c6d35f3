"""The installation's model providers, and which of them a model's name means."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from app.core.config import LiveSettings
from app.core.exceptions import BadRequestError
from app.integrations.llm.base import (
    ModelInfo,
    Provider,
    ProviderNotConfiguredError,
    ProviderUnavailableError,
)
from app.integrations.llm.catalogue import Catalogue, base_name

PREFERENCE = ("bedrock", "anthropic", "openai", "ollama", "guide")
"""Where no default is set, the first of these that has a model to chat gives it."""

MOST_NAMES = 20
"""An error names no more models than that."""

Purpose = Literal["text", "embeddings", "reranking"]
"""The capability that a model is called for."""

_LACKS: Mapping[Purpose, str] = {
    "text": "does not chat",
    "embeddings": "makes no embeddings",
    "reranking": "reranks nothing",
}

REMEMBER_SECONDS = 5.0
"""How long it is believed what a name means: lists change seldom, calls are many."""

_MOST_REMEMBERED = 10_000

_ADDRESSES = {
    "anthropic": "ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL",
    "openai": "OPENAI_BASE_URL",
}


class _Resolved(NamedTuple):
    """What a name meant; it counts until then, and while no admin changes a model."""

    meaning: tuple[Provider, ModelInfo]
    until: float
    changes: int


class Providers:
    def __init__(
        self,
        live: LiveSettings,
        providers: Sequence[Provider],
        *,
        catalogue: Catalogue | None = None,
    ) -> None:
        self._live = live
        self._catalogue = catalogue or Catalogue.load(live.started.models.catalogue)
        self._providers = {provider.name: provider for provider in providers}
        self._resolved: dict[str, _Resolved] = {}

    @property
    def names(self) -> Sequence[str]:
        """What names of models begin with, before the slash."""
        return list(self._providers)

    async def resolve(
        self, name: str, *, able: Purpose | None = "text"
    ) -> tuple[Provider, ModelInfo]:
        """The provider and the facts of `provider/id`, of any model without `able`.

        On Bedrock, a model on offer may be named with another region, too. Raises
        BadRequestError `unknown_model` and `unfit_model`, ProviderNotConfiguredError,
        and ProviderUnavailableError where a server does not tell its models.
        """
        provider, info = await self._meaning(name)
        if able is not None and able not in info.capabilities:
            raise unfit(name, able)
        return provider, info

    async def _meaning(self, name: str) -> tuple[Provider, ModelInfo]:
        known = self._resolved.get(name)
        now, changes = time.monotonic(), self._catalogue.changes
        if known is not None and now < known.until and known.changes == changes:
            return known.meaning
        meaning = await self._look_up(name)
        if len(self._resolved) >= _MOST_REMEMBERED:  # of Bedrock's ARNs there are many
            self._resolved.clear()
        self._resolved[name] = _Resolved(meaning, now + REMEMBER_SECONDS, changes)
        return meaning

    async def _look_up(self, name: str) -> tuple[Provider, ModelInfo]:
        provider = self._providers.get(name.partition("/")[0])
        if provider is None:
            raise await self._unknown(name)
        offered = await self._offered(provider)
        if provider.missing:
            raise ProviderNotConfiguredError(provider.missing)
        for info in offered:
            if info.name == name:
                return provider, info
        if self._catalogue.withdrawn(name):
            raise await self._unknown(name)
        if not await provider.models():
            raise _silent(provider)
        if base_name(name) in {base_name(info.name) for info in offered}:
            return provider, self._catalogue.current(self._catalogue.info(name))
        raise await self._unknown(name)

    async def default_name(self) -> str:
        if default := self._live.current.models.default:
            return default
        rest = sorted(self._providers.keys() - set(PREFERENCE))
        for name in (*PREFERENCE, *rest):
            if name in self._providers:
                for info in await self._offered(self._providers[name]):
                    if "text" in info.capabilities:
                        return info.name
        sentences = (provider.missing for provider in self._providers.values())
        raise ProviderNotConfiguredError(
            " ".join(filter(None, sentences)) or "No model is available."
        )

    def unconfigured(self) -> list[ModelInfo]:
        """Models that are described and could be used if their provider were set up."""
        return [
            self._catalogue.current(self._catalogue.info(name))
            for provider in self._providers.values()
            if provider.missing
            for name in dict.fromkeys(
                [
                    *self._catalogue.names(provider.name),
                    *self._catalogue.registered_names(provider.name),
                ]
            )
            if not self._catalogue.withdrawn(name)
        ]

    async def list(self) -> list[ModelInfo]:
        """Every model that can be used now."""
        offers = await asyncio.gather(*map(self._offered, self._providers.values()))
        return [info for offered in offers for info in offered]

    async def withdrawn(self) -> Sequence[ModelInfo]:
        """What admins took out of the offer, of what providers tell and by name."""
        told = await asyncio.gather(*(p.models() for p in self._providers.values()))
        names = [info.name for infos in told for info in infos]
        for provider in self._providers:
            names += self._catalogue.registered_names(provider)
        return [
            self._catalogue.current(await self.described(name))
            for name in dict.fromkeys(names)
            if self._catalogue.withdrawn(name)
        ]

    async def described(self, name: str) -> ModelInfo:
        """What is known of a model besides what admins registered.

        Raises BadRequestError `unknown_provider`.
        """
        provider = self._providers.get(name.partition("/")[0])
        if provider is None:
            raise BadRequestError(
                f"{name!r} names no provider: begin it with one of "
                f"{', '.join(f'{known}/' for known in self._providers)}.",
                code="unknown_provider",
            )
        told = {info.name: info for info in await provider.models()}
        return told.get(name) or self._catalogue.info(name)

    async def _offered(self, provider: Provider) -> Sequence[ModelInfo]:
        """What the provider tells and admins registered, without what they withdrew."""
        infos = await provider.models()
        if provider.missing:
            return []
        told = {name for i in infos for name in (i.name, base_name(i.name))}
        added = [
            self._catalogue.info(name)
            for name in self._catalogue.registered_names(provider.name)
            if name not in told
        ]
        return [
            self._catalogue.current(info)
            for info in (*infos, *added)
            if not self._catalogue.withdrawn(info.name)
        ]

    def usable(self, info: ModelInfo) -> bool:
        """Whether its provider is set up."""
        return not self._providers[info.provider].missing

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()

    async def _unknown(self, name: str) -> BadRequestError:
        names = [info.name for info in await self.list()]
        shown = ", ".join(names[:MOST_NAMES]) or "none"
        more = f" and {len(names) - MOST_NAMES} more" if names[MOST_NAMES:] else ""
        return BadRequestError(
            f"There is no model {name!r}. Available: {shown}{more}.",
            code="unknown_model",
        )


def unfit(name: str, able: Purpose) -> BadRequestError:
    """The error for a model that cannot do what it is called for."""
    return BadRequestError(
        f"{name} {_LACKS[able]}: the `capabilities` in the list of models say what "
        "each can do.",
        code="unfit_model",
    )


def _silent(provider: Provider) -> ProviderUnavailableError:
    setting = _ADDRESSES.get(provider.name, f"the settings of {provider.name}")
    return ProviderUnavailableError(
        f"{provider.name} does not tell which models it has: check {setting}."
    )
