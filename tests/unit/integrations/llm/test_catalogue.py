from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from app.core.config import ConfigError
from app.integrations.llm.base import Prices
from app.integrations.llm.catalogue import OURS, Catalogue, base_name

HAIKU = "bedrock/anthropic.claude-haiku-4-5-20251001-v1:0"
Write = Callable[[str], Path]


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.load()


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(content: str) -> Path:
        path = tmp_path / "models.toml"
        path.write_text(content, encoding="utf-8")
        return path

    return write


def test_ours_says_when_its_figures_were_taken() -> None:
    assert "2026-11" in OURS.read_text(encoding="utf-8")


@pytest.mark.parametrize("provider", ["bedrock", "anthropic", "openai", "guide"])
def test_every_model_of_ours_has_prices_and_room_for_its_answer(
    catalogue: Catalogue, provider: str
) -> None:
    names = catalogue.names(provider)

    assert names
    for info in map(catalogue.info, names):
        assert info.provider == provider
        assert info.prices is not None
        assert info.max_output_tokens < info.context_window
        chats = "text" in info.capabilities
        assert chats == (info.max_output_tokens > 0)
        assert ("embeddings" in info.capabilities) == (info.dimensions is not None)
        assert chats or info.capabilities in ({"embeddings"}, {"reranking"})


@pytest.mark.parametrize(
    "name",
    [
        HAIKU,
        "bedrock/us.anthropic.claude-haiku-4-5-20251001-v1:0",
        "bedrock/eu.anthropic.claude-haiku-4-5-20251001-v1:0",
        "bedrock/apac.anthropic.claude-haiku-4-5-20251001-v1:0",
        "bedrock/us-gov.anthropic.claude-haiku-4-5-20251001-v1:0",
        "bedrock/global.anthropic.claude-haiku-4-5-20251001-v1:0",
        f"bedrock/arn:aws:bedrock:eu-west-1::foundation-model/{HAIKU[8:]}",
        f"bedrock/arn:aws:bedrock:us-east-1:1:inference-profile/us.{HAIKU[8:]}",
    ],
)
def test_region_and_arn_are_no_part_of_a_bedrock_models_name(
    catalogue: Catalogue, name: str
) -> None:
    assert base_name(name) == HAIKU
    info = catalogue.info(name)
    assert info.name == name
    assert info.context_window == 200_000
    assert "prefill" in info.capabilities


def test_only_bedrocks_global_profile_has_the_bare_prices(catalogue: Catalogue) -> None:
    id_ = "anthropic.claude-opus-4-6-v1"
    bare = Prices(Decimal(5), Decimal(25), Decimal("0.5"), Decimal("6.25"))
    regional = Prices(
        Decimal("5.5"), Decimal("27.5"), Decimal("0.55"), Decimal("6.875")
    )

    assert catalogue.info(f"bedrock/global.{id_}").prices == bare
    assert catalogue.info(f"bedrock/us.{id_}").prices == regional
    assert catalogue.info(f"bedrock/{id_}").prices == regional
    assert catalogue.info("anthropic/claude-opus-4-6").prices == bare


@pytest.mark.parametrize("snapshot", ["gpt-4o-2024-11-20", "gpt-4o-20241120"])
def test_a_snapshot_has_its_models_facts(catalogue: Catalogue, snapshot: str) -> None:
    assert catalogue.info(f"openai/{snapshot}").prices == (
        catalogue.info("openai/gpt-4o").prices
    )


def test_cached_tokens_without_a_price_cost_what_input_costs(
    catalogue: Catalogue,
) -> None:
    prices = catalogue.info("openai/gpt-4o").prices

    assert prices is not None
    assert prices.cache_read == Decimal("1.25")
    assert prices.cache_write == prices.input == Decimal("2.5")


def test_an_unknown_model_gets_careful_guesses_and_no_prices(
    catalogue: Catalogue,
) -> None:
    info = catalogue.info("openai/my/own-model")

    assert (info.name, info.id) == ("openai/my/own-model", "my/own-model")
    assert info.context_window == 32_768
    assert info.max_output_tokens == 4096
    assert info.capabilities == {"text", "tools"}
    assert info.prices is None


@pytest.mark.parametrize(
    "model", ["nomic-embed-text", "Qwen/Qwen3-Embedding-8B", "text-EMBEDDING-9"]
)
def test_an_unknown_model_for_embeddings_is_known_by_its_name(
    catalogue: Catalogue, write: Write, model: str
) -> None:
    name = f"openai/{model}"
    priced = Catalogue.load(write(f'["{name}"]\nprices = {{ input = 1, output = 0 }}'))

    for info in (catalogue.info(name), priced.info(name)):
        assert info.capabilities == {"embeddings"}
        assert info.max_output_tokens == 0


def test_a_file_may_say_what_a_name_does_not(write: Write) -> None:
    told = '["openai/bge-m3"]\ncapabilities = ["embeddings"]\ndimensions = 1024\n'
    chats = '["openai/embedded"]\ncapabilities = ["text"]\nmax_output_tokens = 9\n'
    catalogue = Catalogue.load(write(told + chats))

    embedder, chatter = map(catalogue.info, ("openai/bge-m3", "openai/embedded"))
    assert embedder.capabilities == {"embeddings"}
    assert embedder.dimensions == 1024
    assert chatter.capabilities == {"text"}
    assert chatter.max_output_tokens == 9


def test_an_installations_file_overrides_field_by_field_and_extends(
    write: Write,
) -> None:
    catalogue = Catalogue.load(
        write(
            '["openai/gpt-4o"]\nprices = { input = 1, output = 2.5 }\n'
            '["openai/llama"]\ncontext_window = 8192\n'
        )
    )

    known, new = catalogue.info("openai/gpt-4o"), catalogue.info("openai/llama")
    assert known.prices == Prices(Decimal(1), Decimal("2.5"), Decimal(1), Decimal(1))
    assert known.context_window == 128_000
    assert (new.context_window, new.max_output_tokens) == (8192, 4096)
    assert catalogue.names("openai")[-1] == "openai/llama"
    assert Catalogue.load().info("openai/gpt-4o").prices != known.prices


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[unfinished", "is no TOML"),
        ("a = 1", "a: write each model as a table of its own"),
        ('["gpt-4o"]', "gpt-4o: "),
        ('["openai/a"]\nwindow = 1', r"openai/a\.window: "),
        ('["openai/a"]\ncontext_window = 0', r"openai/a\.context_window: "),
        ('["openai/a"]\ncapabilities = "text"', r"openai/a\.capabilities: "),
        ('["openai/a"]\nprices = { input = 1 }', r"openai/a\.prices\.output: "),
        ('["openai/a"]\nprices = { input = -1, output = 1 }', r"openai/a\.prices\.i"),
        ('["openai/a"]\nprices = { input = nan, output = 1 }', r"openai/a\.prices\.i"),
    ],
)
def test_a_wrong_file_names_the_variable_and_the_entry(
    write: Write, content: str, told: str
) -> None:
    with pytest.raises(ConfigError, match=f"^MODEL_CATALOGUE: .*{told}"):
        Catalogue.load(write(content))


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"^MODEL_CATALOGUE: cannot read .*none\.toml"
    ):
        Catalogue.load(tmp_path / "none.toml")
