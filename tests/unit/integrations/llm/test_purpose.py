"""What models can be called for: to chat, or to make embeddings."""

from collections.abc import AsyncGenerator
from dataclasses import replace
from pathlib import Path

import pytest

from app.core.config import LiveSettings, ModelSettings, load_settings
from app.core.exceptions import BadRequestError
from app.integrations.llm.base import (
    Provider,
    ProviderNotConfiguredError,
    ProviderUnavailableError,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.embeddings import Embedded, EmbedRequest, embed
from app.integrations.llm.http import Http
from app.integrations.llm.openai import OpenAIProvider
from app.integrations.llm.registry import Providers
from app.integrations.llm.routes import Deployment, Route
from app.integrations.llm.routing import Candidate, Router
from tests.fakes.faults import Fault
from tests.fakes.openai import EMBEDDER, FakeOpenAI
from tests.unit.integrations.llm.test_registry import GUIDE, Simple, providers

CATALOGUE = Catalogue.load()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


async def test_a_model_for_embeddings_is_for_nothing_else(directory: Path) -> None:
    registry = providers(directory, Simple("openai", ["gpt-4o", "my-embed"]))
    embedder, chatter = "openai/my-embed", "openai/gpt-4o"

    assert (await registry.resolve(embedder, able="embeddings"))[1].name == embedder
    with pytest.raises(BadRequestError, match="openai/my-embed does not chat") as told:
        await registry.resolve(embedder)
    assert told.value.code == "unfit_model"
    with pytest.raises(BadRequestError, match="gpt-4o makes no embeddings") as told:
        await registry.resolve(chatter, able="embeddings")
    assert told.value.code == "unfit_model"
    with pytest.raises(BadRequestError, match="There is no model"):
        await registry.resolve("openai/none", able="embeddings")


async def test_a_model_for_embeddings_is_listed_and_never_the_default(
    directory: Path,
) -> None:
    openai = Simple("openai", ["my-embed", "gpt-4o"])
    ollama = Simple("ollama", ["nomic-embed-text"])
    registry = providers(directory, openai, GUIDE)

    assert (await registry.list())[0].capabilities == {"embeddings"}
    assert await registry.default_name() == "openai/gpt-4o"
    assert await providers(directory, ollama, GUIDE).default_name() == "guide/manual"
    with pytest.raises(ProviderNotConfiguredError):
        await providers(directory, ollama).default_name()


def router_of(directory: Path, *given: Provider) -> Router:
    settings = load_settings({"SECRET_KEY": "x" * 32}, directory)
    found = Providers(LiveSettings(settings), given, catalogue=CATALOGUE)
    return Router(found, retries=1, chance=lambda: 0.0)


class TestRoutes:
    @pytest.fixture
    def router(self, directory: Path) -> Router:
        openai = Simple("openai", ["gpt-4o", "my-embed"])
        router = router_of(directory, openai, Simple("ollama", missing="Start it."))
        mixed = [Deployment("openai/my-embed"), Deployment("openai/gpt-4o")]
        router.register(
            {
                "mixed": Route(mixed),
                "vectors": Route(mixed[:1]),
                "nothing": Route([Deployment("ollama/nomic-embed-text")]),
            }
        )
        return router

    async def test_only_what_is_able_is_tried(self, router: Router) -> None:
        chatting = await router.candidates("mixed")
        embedding = await router.candidates("mixed", able="embeddings")

        assert [one.model.id for one in chatting] == ["gpt-4o"]
        assert [one.model.id for one in embedding] == ["my-embed"]

    async def test_one_without_any_such_model_says_so(self, router: Router) -> None:
        with pytest.raises(BadRequestError, match="vectors does not chat") as caught:
            await router.candidates("vectors")

        assert caught.value.code == "unfit_model"
        assert await router.candidates("vectors", able="embeddings")
        with pytest.raises(ProviderNotConfiguredError, match="Start it"):
            await router.candidates("nothing")

    async def test_it_is_listed_whatever_it_can_do(self, router: Router) -> None:
        offered = {info.name: info.capabilities for info in await router.offered()}

        assert offered["vectors"] == {"embeddings"}


@pytest.mark.parametrize("faults", [["unavailable"], ["bad_crc"]])
async def test_embeddings_that_fail_are_asked_for_again(
    directory: Path, http: Http, faults: list[Fault]
) -> None:
    async with FakeOpenAI() as server:
        models = ModelSettings(openai_base_url=server.base_url)
        router = router_of(directory, OpenAIProvider(models, CATALOGUE, http))
        request = EmbedRequest(EMBEDDER, ["a"])

        async def call(candidate: Candidate) -> AsyncGenerator[Embedded]:
            yield await embed(
                candidate.provider, replace(request, model=candidate.model.id)
            )

        async def ask() -> list[Embedded]:
            found = await router.candidates(f"openai/{EMBEDDER}", able="embeddings")
            routed = router.routed(found, call, begun=lambda _: True)
            return [item async for item in routed]

        server.plan.faults = list(faults)
        [answer] = await ask()
        server.plan.faults = ["unavailable"] * 2
        with pytest.raises(ProviderUnavailableError):
            await ask()

    assert len(answer.vectors) == 1
    assert len(server.calls) == 4
