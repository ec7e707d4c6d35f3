"""Texts in the order in which they answer a question, by every provider that has it."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import pytest

from app.core.config import ModelSettings
from app.integrations.llm.base import (
    Provider,
    ProviderError,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    Usage,
)
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.bedrock_reranking import billed
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.guide import GuideProvider
from app.integrations.llm.http import Http
from app.integrations.llm.openai import OpenAIProvider
from app.integrations.llm.pricing import cost as cost_of
from app.integrations.llm.reranking import (
    Ranked,
    Reranked,
    RerankRequest,
    estimate_pairs,
    rerank,
    reranked,
    tokens_of,
)
from tests.fakes import bedrock
from tests.fakes.bedrock import FakeBedrock
from tests.fakes.faults import Fault
from tests.fakes.manual import NoManual
from tests.fakes.model_server import FakeServer
from tests.fakes.openai import RERANKER, FakeOpenAI

AMAZON, COHERE = "amazon.rerank-v1:0", "cohere.rerank-v3-5:0"
CATALOGUE = Catalogue.load()
QUERY = "When are sheep shorn?"
TEXTS = ["Ships sail.", "Sheep are shorn in June.", "Sheep eat grass."]


@dataclass
class Way:
    """A model, its provider, and the server that has it."""

    server: FakeServer
    provider: Provider
    model: str

    async def rank(self, *texts: str, top: int = 10) -> Reranked:
        request = RerankRequest(self.model, QUERY, texts or TEXTS, top)
        return await rerank(self.provider, request)


def _settings(url: str, **changes: Any) -> ModelSettings:
    values: dict[str, Any] = {
        "openai_base_url": f"{url}/v1",
        "aws_region": bedrock.REGION,
        "bedrock_base_url": url,
        "aws_access_key_id": bedrock.ACCESS_KEY,
        "aws_secret_access_key": bedrock.SECRET_KEY,
    }
    return ModelSettings(**(values | changes))


@pytest.fixture(params=[RERANKER, AMAZON, COHERE])
async def way(request: pytest.FixtureRequest, http: Http) -> AsyncIterator[Way]:
    of_openai = request.param == RERANKER
    async with FakeOpenAI() if of_openai else FakeBedrock() as server:
        models = _settings(server.url)
        kind = OpenAIProvider if of_openai else BedrockProvider
        yield Way(server, kind(models, CATALOGUE, http), request.param)


async def test_the_best_come_first(way: Way) -> None:
    made = await way.rank()

    assert [one.place for one in made.ranked] == [1, 2, 0]
    assert made.ranked[0].score > made.ranked[1].score > made.ranked[2].score
    assert [one.place for one in (await way.rank(top=2)).ranked] == [1, 2]


async def test_tokens_are_those_that_the_provider_counts_or_ours(way: Way) -> None:
    way.server.plan.input_tokens = 77
    counted = await way.rank()
    way.server.plan.tells_usage = False
    estimated = await way.rank()

    request = RerankRequest(way.model, QUERY, TEXTS, 10)
    before = tokens_of(way.provider, request)
    if way.model == RERANKER:
        assert (counted.input_tokens, counted.estimated) == (77, False)
        assert (estimated.input_tokens, estimated.estimated) == (before, True)
        assert before == estimate_pairs(request)
    else:  # AWS bills a search, whatever its tokens are
        assert (counted.input_tokens, counted.estimated) == (10_000, False)
        assert estimated == counted
        assert before == 10_000


@pytest.mark.parametrize(
    ("texts", "searches"),
    [
        (["word " * 400] * 100, 1),  # 500 tokens, and the question's
        (["word " * 400] * 101, 2),
        (["word " * 410] * 50, 1),  # longer than 512, each of them
        (["word " * 410] * 51, 2),
    ],
)
def test_bedrock_bills_searches_of_a_hundred_texts(
    texts: list[str], searches: int
) -> None:
    """TRUST M2."""
    tokens = billed(RerankRequest(COHERE, QUERY, texts, 10))

    cost = cost_of(Usage(tokens, 0), CATALOGUE.info(f"bedrock/{COHERE}").prices)
    assert cost == searches * 2_000  # credits: 0.002 dollars


async def test_it_is_asked_in_its_own_form(way: Way) -> None:
    await way.rank(top=2)

    [call] = way.server.calls
    plain = {"query": QUERY, "documents": TEXTS}
    assert call.body == {
        RERANKER: {"model": RERANKER, "top_n": 2, **plain},
        AMAZON: plain,
        COHERE: {"top_n": 2, "api_version": 2, **plain},
    }.get(way.model)


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("throttle_first", ProviderThrottledError),
        ("unavailable", ProviderUnavailableError),
        ("cut", ProviderStreamBrokenError),
        ("stall", ProviderTimeoutError),
    ],
)
async def test_each_fault_is_a_typed_error(
    way: Way, fault: Fault, error: type[ProviderError]
) -> None:
    way.server.plan.faults = [fault]

    with pytest.raises(ProviderError) as caught:
        await way.rank()

    assert type(caught.value) is error
    assert (await way.rank()).ranked


async def test_a_model_that_there_is_not_is_refused(way: Way) -> None:
    way.model = "nonsense"

    with pytest.raises(ProviderRejectedError):
        await way.rank()


async def test_bedrock_offers_its_rerankers_without_profiles_and_not_by_mantle(
    http: Http,
) -> None:
    runtime = BedrockProvider(_settings("http://127.0.0.1:1"), CATALOGUE, http)
    settings = _settings("http://127.0.0.1:1", bedrock_endpoint="mantle")
    mantle = BedrockProvider(settings, CATALOGUE, http)

    offered = {info.id: info.capabilities for info in await runtime.models()}

    assert offered[AMAZON] == offered[COHERE] == {"reranking"}
    assert not {AMAZON, COHERE} & {info.id for info in await mantle.models()}
    with pytest.raises(ProviderNotConfiguredError, match="BEDROCK_ENDPOINT=runtime"):
        await rerank(mantle, RerankRequest(COHERE, QUERY, TEXTS, 1))


async def test_a_provider_without_such_models_says_so() -> None:
    with pytest.raises(ProviderRejectedError, match="guide has no models for"):
        await rerank(
            GuideProvider(NoManual()), RerankRequest("manual", QUERY, TEXTS, 1)
        )


def one(index: int, score: float) -> dict[str, Any]:
    return {"index": index, "relevance_score": score}


def test_more_than_was_asked_for_in_no_order_is_put_in_order() -> None:
    told = [one(2, -0.5), one(0, 0.2), one(1, 3)]

    made = reranked(RerankRequest("m", QUERY, TEXTS, 2), "It", told, 5)

    assert made == Reranked([Ranked(1, 3.0), Ranked(0, 0.2)], 5)


@pytest.mark.parametrize(
    "told",
    [
        [],
        [one(0, 1)],
        [one(0, 1), one(0, 1)],
        [one(0, 1), one(3, 1)],
        [one(0, 1), one(-1, 1)],
    ],
)
def test_other_documents_than_it_got_are_a_broken_answer(told: Any) -> None:
    with pytest.raises(ProviderStreamBrokenError):
        reranked(RerankRequest("m", QUERY, TEXTS, 2), "It", told, 5)


def test_a_models_name_tells_that_it_reranks() -> None:
    info = CATALOGUE.info("openai/BAAI/bge-reranker-v2-m3")

    assert info.capabilities == {"reranking"}
    assert info.max_output_tokens == 0
