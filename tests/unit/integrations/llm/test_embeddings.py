"""Embeddings by every provider that has them, against fakes on the real wire."""

import asyncio
from array import array
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from app.core.config import ModelSettings
from app.integrations.llm.base import (
    Provider,
    ProviderAuthError,
    ProviderError,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.embeddings import (
    CALLS_AT_ONCE,
    Embedded,
    Embedder,
    EmbedRequest,
    embed,
    embedded,
)
from app.integrations.llm.guide import GuideProvider
from app.integrations.llm.http import Http
from app.integrations.llm.ollama import OllamaProvider
from app.integrations.llm.openai import OpenAIProvider
from tests.fakes import bedrock
from tests.fakes.bedrock import FakeBedrock
from tests.fakes.faults import Fault
from tests.fakes.manual import NoManual
from tests.fakes.model_server import FakeServer, vector_of
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import DIMENSIONS, EMBEDDER, FakeOpenAI
from tests.unit.integrations.llm.conftest import raw_server

NOMIC = "nomic-embed-text:latest"
TITAN = "amazon.titan-embed-text-v2:0"
COHERE = "us.cohere.embed-v4:0"
COHERE_3 = "cohere.embed-multilingual-v3"
CATALOGUE = Catalogue.load()


@dataclass
class Way:
    """A model, its provider, and the server that has it."""

    server: FakeServer
    provider: Provider
    model: str
    length: int
    most: int

    async def embed(self, *texts: Any, **wishes: Any) -> Embedded:
        return await embed(self.provider, EmbedRequest(self.model, texts, **wishes))

    def bodies(self) -> list[Any]:
        """What the server was sent."""
        return [call.body for call in self.server.calls]


@pytest.fixture(params=["openai", "ollama", "titan", "cohere", "cohere 3"])
async def way(request: pytest.FixtureRequest, http: Http) -> AsyncIterator[Way]:
    async with _server(request.param) as server:
        yield _way(request.param, server, http)


def _server(name: str) -> FakeServer:
    match name:
        case "openai":
            return FakeOpenAI(api_key="sk-right")
        case "ollama":
            return FakeOllama()
    return FakeBedrock()


def _way(name: str, server: FakeServer, http: Http, **settings: Any) -> Way:
    values: dict[str, Any] = {
        "openai_base_url": f"{server.url}/v1",
        "openai_api_key": "sk-right",
        "ollama_base_url": server.url,
        "aws_region": bedrock.REGION,
        "bedrock_base_url": server.url,
        "aws_access_key_id": bedrock.ACCESS_KEY,
        "aws_secret_access_key": bedrock.SECRET_KEY,
    }
    models = ModelSettings(**(values | settings))
    match name:
        case "openai":
            provider: Provider = OpenAIProvider(models, CATALOGUE, http)
            return Way(server, provider, EMBEDDER, DIMENSIONS, 128)
        case "ollama":
            provider = OllamaProvider(models, CATALOGUE, http)
            return Way(server, provider, NOMIC, 8, 32)
    provider = BedrockProvider(models, CATALOGUE, http)
    return {
        "titan": Way(server, provider, TITAN, 1024, 1),
        "cohere": Way(server, provider, COHERE, 1536, 96),
        "cohere 3": Way(server, provider, COHERE_3, 1024, 96),
    }[name]


def expected(way: Way, text: Any, length: int, kind: str = "search_document") -> Any:
    seen = [kind, text] if "cohere" in way.model else text
    return array("d", vector_of(seen, length))


class TestAnswers:
    async def test_each_input_has_its_vector(self, way: Way) -> None:
        result = await way.embed("Grüße 😀", "漢字")

        assert result.vectors == [
            expected(way, "Grüße 😀", way.length),
            expected(way, "漢字", way.length),
        ]

    async def test_tokens_are_those_that_the_provider_counts(self, way: Way) -> None:
        way.server.plan.input_tokens = 7

        result = await way.embed("a", "b")

        calls = len(way.bodies())
        assert (result.input_tokens, result.estimated) == (7 * calls, False)

    async def test_without_a_count_they_are_estimated(self, way: Way) -> None:
        way.server.plan.tells_usage = False

        result = await way.embed("12345678", "1234")

        if way.model == TITAN:  # it always tells
            assert not result.estimated
        else:
            assert (result.input_tokens, result.estimated) == (3, True)

    async def test_many_inputs_take_as_many_calls_as_they_need(self, way: Way) -> None:
        texts = [f"text {number}" for number in range(way.most + 1)]

        result = await way.embed(*texts)

        assert result.vectors == [expected(way, text, way.length) for text in texts]
        assert len(way.bodies()) == 2
        assert result.input_tokens == 2 * way.server.plan.input_tokens

    async def test_it_is_known_to_have_embeddings(self, way: Way) -> None:
        assert isinstance(way.provider, Embedder)
        listed = {info.id: info for info in await way.provider.models()}

        assert listed[way.model].capabilities == {"embeddings"}


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "error"),
        [
            ("throttle_first", ProviderThrottledError),
            ("unavailable", ProviderUnavailableError),
            ("bad_crc", ProviderStreamBrokenError),
            ("cut", ProviderStreamBrokenError),
            ("stall", ProviderTimeoutError),
        ],
    )
    async def test_each_is_a_typed_error(
        self, way: Way, fault: Fault, error: type[ProviderError]
    ) -> None:
        way.server.plan.faults = [fault]

        with pytest.raises(ProviderError) as caught:
            await way.embed("a")

        assert type(caught.value) is error
        assert (await way.embed("a")).vectors

    async def test_a_refusal_tells_when_to_come_back(self, way: Way) -> None:
        way.server.plan.update({"faults": ["throttle_first"], "retry_after": "3"})

        with pytest.raises(ProviderThrottledError) as caught:
            await way.embed("a")

        assert caught.value.retry_after == 3

    async def test_one_that_fails_fails_all(self, way: Way) -> None:
        way.server.plan.faults = ["none", "unavailable"]
        answered: list[Embedded] = []

        with pytest.raises(ProviderUnavailableError):
            await embed(
                way.provider,
                EmbedRequest(way.model, ["a"] * (2 * way.most)),
                took=answered.append,
            )

        assert [len(part.vectors) for part in answered] == [way.most]

    async def test_a_model_that_there_is_not(self, way: Way) -> None:
        with pytest.raises(ProviderRejectedError):
            await embed(way.provider, EmbedRequest("nonsense", ["a"]))

    async def test_leaving_ends_the_call_at_the_server(self, way: Way) -> None:
        way.server.plan.faults = ["stall"]
        leaving = asyncio.create_task(way.embed("a"))
        await asyncio.wait_for(way.server.called.wait(), 5)
        leaving.cancel()

        with pytest.raises(asyncio.CancelledError):
            await leaving
        await asyncio.wait_for(way.server.calls[0].ended.wait(), 5)
        assert way.server.calls[0].outcome == "dropped"


class TestOpenAI:
    @pytest.fixture
    async def way(self, http: Http) -> AsyncIterator[Way]:
        async with _server("openai") as server:
            yield _way("openai", server, http)

    async def test_the_body_is_what_every_server_takes(self, way: Way) -> None:
        await way.embed("a", "b", input_type="query")

        assert way.bodies() == [{"model": EMBEDDER, "input": ["a", "b"]}]

    async def test_tokens_and_dimensions_go_through(self, way: Way) -> None:
        result = await way.embed([1, 2, 3], [4], dimensions=3)

        assert way.bodies()[0]["input"] == [[1, 2, 3], [4]]
        assert result.vectors == [
            array("d", vector_of([1, 2, 3], 3)),
            array("d", vector_of([4], 3)),
        ]

    async def test_ids_of_tokens_are_counted_as_they_are(self, way: Way) -> None:
        way.server.plan.tells_usage = False

        assert (await way.embed([1, 2, 3], [4])).input_tokens == 4

    async def test_what_openai_does_not_take_is_told(self, way: Way) -> None:
        with pytest.raises(ProviderRejectedError, match="dimensions"):
            await way.embed("a", dimensions=9000)

    async def test_a_wrong_key_is_the_installation_s_matter(
        self, way: Way, http: Http
    ) -> None:
        wrong = _way("openai", way.server, http, openai_api_key="sk-wrong")

        with pytest.raises(ProviderAuthError):
            await wrong.embed("a")

    async def test_without_address_and_key_it_is_not_set_up(
        self, way: Way, http: Http
    ) -> None:
        off = _way("openai", way.server, http, openai_base_url="", openai_api_key=None)

        with pytest.raises(ProviderNotConfiguredError, match="OPENAI_BASE_URL"):
            await off.embed("a")

    @pytest.mark.parametrize(
        "answer",
        [
            "<html>",
            "[]",
            "{}",
            '{"data": [{"embedding": [1.5]}]}',
            '{"data": [{"index": 0, "embedding": "AAAA"}]}',
            '{"data": [{"index": 0, "embedding": [1.5, null]}]}',
            '{"data": []}',
            '{"data": [{"index": 0, "embedding": [1]}, {"index": 1, "embedding": []}]}',
        ],
    )
    async def test_an_answer_of_another_shape_is_broken(
        self, http: Http, answer: str
    ) -> None:
        async with raw_server(_answering(answer)) as url:
            models = ModelSettings(openai_base_url=url)
            provider = OpenAIProvider(models, CATALOGUE, http)

            with pytest.raises(ProviderStreamBrokenError):
                await embed(provider, EmbedRequest("m", ["a"]))


def _answering(body: str) -> Any:
    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write((head + body).encode())
        await writer.drain()
        writer.write_eof()
        await reader.read()

    return handle


class TestOllama:
    @pytest.fixture
    async def way(self, http: Http) -> AsyncIterator[Way]:
        async with _server("ollama") as server:
            yield _way("ollama", server, http)

    async def test_it_is_told_how_long_a_text_may_be(self, way: Way) -> None:
        await way.embed("a", input_type="document")

        assert way.bodies() == [
            {
                "model": NOMIC,
                "input": ["a"],
                "truncate": False,
                "options": {"num_ctx": 2048},
            }
        ]

    async def test_what_is_too_long_is_refused_and_not_cut_off(self, way: Way) -> None:
        with pytest.raises(ProviderRejectedError, match="context length"):
            await way.embed("word " * 2049)

    async def test_dimensions_that_it_overlooks_are_no_silent_success(
        self, way: Way
    ) -> None:
        assert isinstance(way.server, FakeOllama)
        assert len((await way.embed("a", dimensions=4)).vectors[0]) == 4
        way.server.knows_dimensions = False

        with pytest.raises(
            ProviderRejectedError, match=r"^dimensions: .* 8 numbers, not 4\.$"
        ):
            await way.embed("a", dimensions=4)

    async def test_a_model_that_chats_alone_is_refused(self, way: Way) -> None:
        with pytest.raises(ProviderRejectedError, match="does not support embeddings"):
            await embed(way.provider, EmbedRequest("llama3.2:latest", ["a"]))

    async def test_switched_off_it_is_not_set_up(self, way: Way, http: Http) -> None:
        off = _way("ollama", way.server, http, ollama_base_url="off")

        with pytest.raises(ProviderNotConfiguredError):
            await off.embed("a")


class TestBedrock:
    @pytest.fixture(params=["titan", "cohere", "cohere 3"])
    async def way(
        self, request: pytest.FixtureRequest, http: Http
    ) -> AsyncIterator[Way]:
        async with _server(request.param) as server:
            yield _way(request.param, server, http)

    async def test_each_family_has_a_body_of_its_own(self, way: Way) -> None:
        await way.embed("a")

        path = way.model.replace(":", "%3A")
        assert way.server.calls[0].path == f"/model/{path}/invoke"
        if way.model == TITAN:
            assert way.bodies() == [{"inputText": "a"}]
        else:
            assert way.bodies() == [
                {
                    "texts": ["a"],
                    "input_type": "search_document",
                    "embedding_types": ["float"],
                    "truncate": "NONE",
                }
            ]

    async def test_dimensions_go_to_models_that_have_several(self, way: Way) -> None:
        if way.model == COHERE_3:
            with pytest.raises(ProviderRejectedError, match="takes no dimensions"):
                await way.embed("a", dimensions=256)
            assert way.bodies() == []
        else:
            [vector] = (await way.embed("a", dimensions=256)).vectors
            assert vector == expected(way, "a", 256)

    async def test_what_a_text_is_for_is_told_to_models_that_ask(
        self, way: Way
    ) -> None:
        query = (await way.embed("a", input_type="query")).vectors
        document = (await way.embed("a", input_type="document")).vectors

        assert query == [expected(way, "a", way.length, "search_query")]
        assert (query == document) is (way.model == TITAN)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"aws_access_key_id": "AKIDWRONG"},
            {"aws_secret_access_key": "wrong"},
            {"bedrock_api_key": "wrong"},
        ],
    )
    async def test_wrong_credentials_are_the_installation_s_matter(
        self, way: Way, http: Http, wrong: dict[str, str]
    ) -> None:
        with pytest.raises(ProviderAuthError):
            await replace(way, provider=_bedrock(way, http, **wrong)).embed("a")

    async def test_mantle_has_none_and_says_what_to_set(
        self, way: Way, http: Http
    ) -> None:
        provider = _bedrock(way, http, bedrock_endpoint="mantle")

        with pytest.raises(ProviderNotConfiguredError, match="BEDROCK_ENDPOINT"):
            await replace(way, provider=provider).embed("a")
        names = [info.name for info in await provider.models()]
        assert not [name for name in names if "embed" in name]

    async def test_no_more_calls_than_that_run_at_once(self, http: Http) -> None:
        async with _server("titan") as server:
            titan = _way("titan", server, http)
            faults: list[Fault] = ["stall"] * (CALLS_AT_ONCE + 1)
            server.plan.faults = faults

            with pytest.raises(ProviderTimeoutError):
                await titan.embed(*map(str, range(CALLS_AT_ONCE + 1)))

            assert len(server.calls) == CALLS_AT_ONCE

    async def test_cancelled_those_on_their_way_count_and_no_others(
        self, http: Http
    ) -> None:
        """TRUST M2: they are billed, though nobody hears their figures any more."""
        async with _server("titan") as server:
            titan = _way("titan", server, http)
            faults: list[Fault] = ["stall"] * CALLS_AT_ONCE
            server.plan.faults = ["none", *faults]
            told: list[Embedded] = []
            inputs = ["word " * 4] * (CALLS_AT_ONCE + 5)
            request = EmbedRequest(titan.model, inputs)
            making = asyncio.create_task(
                embed(titan.provider, request, took=told.append)
            )
            while len(server.calls) <= CALLS_AT_ONCE:  # noqa: ASYNC110 - the fake calls nobody
                await asyncio.sleep(0.01)

            making.cancel()
            with pytest.raises(asyncio.CancelledError):
                await making

            assert [one.estimated for one in told] == [False, *[True] * CALLS_AT_ONCE]
            assert {one.input_tokens for one in told[1:]} == {5}


def _bedrock(way: Way, http: Http, **settings: str) -> Provider:
    return _way("titan", way.server, http, **settings).provider


async def test_only_texts_are_taken_but_by_openai(way: Way) -> None:
    if way.model == EMBEDDER:
        assert (await way.embed([1, 2])).vectors
    else:
        with pytest.raises(ProviderRejectedError, match=r"^input: .* no ids of tokens"):
            await way.embed([1, 2])
        assert way.bodies() == []


async def test_a_provider_without_such_models_says_so() -> None:
    with pytest.raises(ProviderRejectedError, match="guide has no models for"):
        await embed(GuideProvider(NoManual()), EmbedRequest("manual", ["a"]))


@pytest.mark.parametrize("rows", [[], [[1.0], [2.0]]])
def test_a_vector_too_few_or_too_many_is_a_broken_answer(
    rows: Sequence[Sequence[float]],
) -> None:
    with pytest.raises(ProviderStreamBrokenError, match="for 1 inputs"):
        embedded(EmbedRequest("m", ["a"]), "Somebody", rows, 1)
