from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

import pytest

from app.core.config import LiveSettings, load_settings
from app.core.exceptions import BadRequestError
from app.integrations.llm.base import (
    ChatRequest,
    ModelInfo,
    Provider,
    ProviderEvent,
    ProviderNotConfiguredError,
    ProviderUnavailableError,
    Stop,
)
from app.integrations.llm.catalogue import Catalogue, PriceList, Registration
from app.integrations.llm.registry import Providers

CATALOGUE = Catalogue.load()


@dataclass
class Simple:
    """A provider with that much to say; it is a real one, in memory."""

    name: str
    ids: list[str] = field(default_factory=list)
    missing: str | None = None
    closed: bool = False

    async def models(self) -> list[ModelInfo]:
        if self.missing:
            return []
        return [CATALOGUE.info(f"{self.name}/{id_}") for id_ in self.ids]

    async def stream(self, _request: ChatRequest) -> AsyncIterator[ProviderEvent]:
        yield Stop("end_turn")

    async def close(self) -> None:
        self.closed = True


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path


def providers(
    directory: Path,
    *given: Provider,
    catalogue: Catalogue | None = CATALOGUE,
    **env: str,
) -> Providers:
    settings = load_settings({"SECRET_KEY": "x" * 32, **env}, directory)
    return Providers(LiveSettings(settings), given, catalogue=catalogue)


GUIDE = Simple("guide", ["manual"])


async def test_a_name_gives_its_provider_and_facts(directory: Path) -> None:
    openai = Simple("openai", ["gpt-4o", "org/llama"])
    registry = providers(directory, openai, GUIDE)

    assert await registry.resolve("openai/org/llama") == (
        openai,
        CATALOGUE.info("openai/org/llama"),
    )
    assert (await registry.resolve("guide/manual"))[0] is GUIDE


async def test_on_bedrock_another_region_may_be_named(directory: Path) -> None:
    bedrock = Simple("bedrock", ["us.anthropic.claude-opus-5"])
    name = "bedrock/global.anthropic.claude-opus-5"

    provider, info = await providers(directory, bedrock).resolve(name)

    assert provider is bedrock
    assert info == CATALOGUE.info(name)


@pytest.mark.parametrize(
    "name", ["nobody/x", "openai/x", "openai", "", "bedrock/us.anthropic.claude-x"]
)
async def test_an_unknown_name_is_told_what_there_is(
    directory: Path, name: str
) -> None:
    bedrock = Simple("bedrock", ["us.anthropic.claude-opus-5"])
    registry = providers(directory, bedrock, Simple("openai", ["gpt-4o"]), GUIDE)

    with pytest.raises(BadRequestError) as caught:
        await registry.resolve(name)

    assert caught.value.code == "unknown_model"
    assert caught.value.detail == (
        f"There is no model {name!r}. Available: bedrock/us.anthropic.claude-opus-5, "
        "openai/gpt-4o, guide/manual."
    )


async def test_not_every_one_of_many_models_is_told(directory: Path) -> None:
    many = Simple("openai", [f"m{number}" for number in range(50)])

    with pytest.raises(BadRequestError, match=r"openai/m19 and 30 more\.$"):
        await providers(directory, many).resolve("openai/x")


async def test_where_there_is_no_model_the_error_says_so(directory: Path) -> None:
    with pytest.raises(BadRequestError, match=r"Available: none\.$"):
        await providers(directory).resolve("openai/x")


async def test_a_provider_that_is_not_set_up_says_what_to_set(directory: Path) -> None:
    registry = providers(directory, Simple("bedrock", missing="Set AWS_REGION."))

    with pytest.raises(ProviderNotConfiguredError, match=r"^Set AWS_REGION\.$"):
        await registry.resolve("bedrock/anthropic.claude-opus-5")


@pytest.mark.parametrize(
    ("name", "told"),
    [("openai", "check OPENAI_BASE_URL"), ("ollama", "the settings of ollama")],
)
async def test_a_silent_server_is_no_unknown_model(
    directory: Path, name: str, told: str
) -> None:
    with pytest.raises(ProviderUnavailableError, match=told):
        await providers(directory, Simple(name)).resolve(f"{name}/x")


async def test_the_default_is_what_is_set(directory: Path) -> None:
    registry = providers(directory, GUIDE, DEFAULT_MODEL="openai/gpt-4o")

    assert await registry.default_name() == "openai/gpt-4o"


async def test_else_the_first_that_there_is(directory: Path) -> None:
    other = Simple("other", ["x"])
    bedrock = Simple("bedrock", ["us.anthropic.claude-opus-5", "b"])
    off = Simple("bedrock", missing="Set AWS_REGION.")
    silent = Simple("openai")

    async def default(*given: Provider) -> str:
        return await providers(directory, *given).default_name()

    assert await default(other, GUIDE, bedrock) == "bedrock/us.anthropic.claude-opus-5"
    assert await default(other, GUIDE, silent, off) == "guide/manual"
    assert await default(other, silent, off) == "other/x"


async def test_without_any_model_the_default_says_what_to_set(directory: Path) -> None:
    off = Simple("bedrock", missing="Set AWS_REGION.")
    silent = Simple("openai")

    with pytest.raises(ProviderNotConfiguredError, match=r"^Set AWS_REGION\.$"):
        await providers(directory, off, silent).default_name()
    with pytest.raises(ProviderNotConfiguredError, match="No model"):
        await providers(directory, silent).default_name()


async def test_the_list_is_what_can_be_used(directory: Path) -> None:
    off = Simple("bedrock", missing="Set AWS_REGION.")
    registry = providers(directory, off, Simple("openai", ["gpt-4o"]), GUIDE)

    assert [m.name for m in await registry.list()] == ["openai/gpt-4o", "guide/manual"]
    assert [m.name for m in registry.unconfigured()] == CATALOGUE.names("bedrock")


async def test_the_catalogue_is_the_installations(directory: Path) -> None:
    path = directory / "models.toml"
    path.write_text('["bedrock/anthropic.x"]\ncontext_window = 777\n', encoding="utf-8")
    bedrock = Simple("bedrock", ["us.anthropic.x"])
    registry = providers(directory, bedrock, catalogue=None, MODEL_CATALOGUE=str(path))

    assert (await registry.resolve("bedrock/eu.anthropic.x"))[1].context_window == 777


PRICES = PriceList(input=Decimal(10), output=Decimal(100))
OPUS = "bedrock/anthropic.claude-opus-5"


def opus(region: str) -> str:
    return OPUS.replace("/", f"/{region}.")


class TestRegistered:
    """What admins say of Bedrock's models, which have a name for each region."""

    def offer(self, directory: Path, **said: Registration) -> Providers:
        """By region; `any` is the model's name without one."""
        catalogue = Catalogue.load()
        catalogue.register(
            {
                opus(r).replace("any.", ""): registration
                for r, registration in said.items()
            }
        )
        bedrock = Simple("bedrock", ["eu.anthropic.claude-opus-5"])
        return providers(directory, bedrock, GUIDE, catalogue=catalogue)

    async def test_prices_are_those_of_every_region_with_its_surcharge(
        self, directory: Path
    ) -> None:
        registry = self.offer(directory, any=Registration(prices=PRICES))

        listed = [m.name for m in await registry.list()]
        _, european = await registry.resolve(opus("eu"))
        _, everywhere = await registry.resolve(opus("global"))

        assert listed == [opus("eu"), "guide/manual"]
        assert european.prices is not None
        assert everywhere.prices is not None
        assert european.prices.input == Decimal(11)
        assert european.prices.output == Decimal(110)
        assert everywhere.prices.input == Decimal(10)
        assert everywhere.prices.output == Decimal(100)

    async def test_a_region_s_own_go_first_and_are_meant_as_they_are(
        self, directory: Path
    ) -> None:
        dear = PriceList(input=Decimal(7), output=Decimal(7))
        registry = self.offer(
            directory, any=Registration(prices=PRICES), eu=Registration(prices=dear)
        )

        _, european = await registry.resolve(opus("eu"))

        assert european.prices is not None
        assert european.prices.input == european.prices.cache_read == 7

    async def test_a_region_of_its_own_is_on_offer_besides(
        self, directory: Path
    ) -> None:
        registry = self.offer(directory, us=Registration())

        listed = [m.name for m in await registry.list()]

        assert listed == [opus("eu"), opus("us"), "guide/manual"]

    async def test_what_is_taken_out_is_so_by_every_name(self, directory: Path) -> None:
        registry = self.offer(directory, any=Registration(enabled=False))

        for name in (OPUS, opus("eu"), opus("us")):
            with pytest.raises(BadRequestError, match=r"Available: guide/manual\.$"):
                await registry.resolve(name)
        assert [m.name for m in await registry.withdrawn()] == [opus("eu"), OPUS]
        assert await registry.default_name() == "guide/manual"

    async def test_a_region_can_be_taken_out_alone(self, directory: Path) -> None:
        registry = self.offer(directory, us=Registration(enabled=False))

        with pytest.raises(BadRequestError, match="There is no model"):
            await registry.resolve(opus("us"))
        assert (await registry.resolve(opus("global")))[1].name == opus("global")


async def test_what_is_registered_is_there_while_its_server_is_silent(
    directory: Path,
) -> None:
    catalogue = Catalogue.load()
    catalogue.register({"openai/mine": Registration(context_window=777)})
    registry = providers(directory, Simple("openai"), catalogue=catalogue)

    assert (await registry.resolve("openai/mine"))[1].context_window == 777
    with pytest.raises(ProviderUnavailableError):
        await registry.resolve("openai/x")


async def test_closing_closes_every_provider(directory: Path) -> None:
    given = [Simple("openai"), Simple("bedrock")]

    await providers(directory, *given).close()

    assert all(provider.closed for provider in given)
