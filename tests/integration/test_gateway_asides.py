"""Embeddings, counts of tokens and the list of models, by the official clients."""

from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.conftest import Server
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.faults import Fault, FaultPlan
from tests.fakes.openai import DIMENSIONS, EMBEDDER, FakeOpenAI
from tests.integration.gateway import Gateway
from tests.integration.providers import variables_for

EMBEDDINGS = f"openai/{EMBEDDER}"
CATALOGUE = f"""
["{EMBEDDINGS}"]
context_window = 8192
max_output_tokens = 1
capabilities = ["embeddings"]
prices = {{ input = 10, output = 0 }}
"""


@pytest.fixture
async def server(
    serve: Any, fake_openai: FakeOpenAI, fake_anthropic: FakeAnthropic, tmp_path: Path
) -> AsyncIterator[Server]:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(CATALOGUE)
    variables = variables_for("openai", fake_openai)
    variables |= variables_for("anthropic", fake_anthropic)
    async with serve(**variables, MODEL_CATALOGUE=str(catalogue)) as server:
        yield server


@pytest.fixture
async def gateway(server: Server, fake_openai: FakeOpenAI) -> Gateway:
    return await Gateway.opened(server, "openai", fake_openai)


async def usage_of(gateway: Gateway) -> dict[str, Any]:
    await gateway.server.runtime.credits.flush()
    items = (await gateway.owner.get("/usage?group_by=model")).json["items"]
    return {item["model"]: item for item in items}


@pytest.mark.parametrize("encoding", ["float", "base64"])
async def test_embeddings_come_and_are_booked(gateway: Gateway, encoding: str) -> None:
    """M2."""
    async with gateway.openai() as client:
        made = await client.embeddings.create(
            model=EMBEDDINGS,
            input=["one " * 100, "two " * 100],
            encoding_format=encoding,  # type: ignore[arg-type]  # pytest knows no literals
        )
        shorter = await client.embeddings.create(
            model=EMBEDDINGS, input="one " * 100, dimensions=3
        )

    assert [one.index for one in made.data] == [0, 1]
    # A client that asked for base64 gets it; by itself it asks for that, and reads it.
    length = (
        DIMENSIONS if encoding == "float" else len(b64encode(bytes(4 * DIMENSIONS)))
    )
    assert {len(one.embedding) for one in made.data} == {length}
    assert len(shorter.data[0].embedding) == 3
    assert made.model == EMBEDDINGS
    tokens = gateway.fake.plan.input_tokens
    assert made.usage.prompt_tokens == tokens
    used = (await usage_of(gateway))[EMBEDDINGS]
    assert used["input_tokens"] == 2 * tokens
    assert used["credits"] == 2 * tokens * 10


async def test_embeddings_that_fail_cost_nothing(gateway: Gateway) -> None:
    """M2."""
    gateway.fake.plan = FaultPlan(faults=["unavailable"] * 9)

    async with gateway.openai() as client:
        with pytest.raises(openai.InternalServerError):
            await client.embeddings.create(model=EMBEDDINGS, input="one")

    assert (await usage_of(gateway)).get(EMBEDDINGS, {"credits": 0})["credits"] == 0


async def test_of_embeddings_that_fail_what_was_answered_is_paid(
    gateway: Gateway,
) -> None:
    """M2."""
    faults: list[Fault] = ["unavailable"] * 20
    gateway.fake.plan = FaultPlan(faults=["none", *faults])

    async with gateway.openai() as client:
        with pytest.raises(openai.InternalServerError):
            await client.embeddings.create(model=EMBEDDINGS, input=["one"] * 256)

    used = (await usage_of(gateway))[EMBEDDINGS]
    assert used["input_tokens"] == gateway.fake.plan.input_tokens
    assert used["credits"] == gateway.fake.plan.input_tokens * 10


async def test_a_model_that_talks_makes_none_and_the_other_way_round(
    gateway: Gateway,
) -> None:
    async with gateway.openai() as client:
        with pytest.raises(openai.BadRequestError, match="embeddings"):
            await client.embeddings.create(model=gateway.model, input="one")
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(
                model=EMBEDDINGS, messages=[{"role": "user", "content": "Hi"}]
            )


async def test_tokens_are_counted_by_the_provider_or_estimated(
    gateway: Gateway, fake_anthropic: FakeAnthropic
) -> None:
    asked: Any = {"messages": [{"role": "user", "content": "word " * 100}]}
    async with gateway.anthropic() as client:
        told = await client.messages.count_tokens(
            model="anthropic/claude-opus-5", **asked
        )
        estimated = await client.messages.count_tokens(model=gateway.model, **asked)

    assert told.input_tokens == fake_anthropic.plan.input_tokens
    assert 100 <= estimated.input_tokens <= 200
    assert await usage_of(gateway) == {}


async def test_the_list_holds_what_the_key_may_call(gateway: Gateway) -> None:
    """K2."""
    limited = await gateway.new_key(models=["openai/fake-small"])

    async with gateway.openai() as client:
        every = [model.id async for model in await client.models.list()]
        one = await client.models.retrieve(EMBEDDINGS)
    async with gateway.openai(api_key=limited["key"]) as client:
        few = [model.id async for model in await client.models.list()]
        with pytest.raises(openai.NotFoundError):
            await client.models.retrieve(EMBEDDINGS)

    assert {EMBEDDINGS, gateway.model, "guide/manual"} <= set(every)
    assert (one.id, one.owned_by) == (EMBEDDINGS, "openai")
    assert few == ["openai/fake-small"]


async def test_anthropic_s_clients_get_it_in_pages(gateway: Gateway) -> None:
    async with gateway.openai() as client:
        every = [model.id async for model in await client.models.list()]
    async with gateway.anthropic() as anthropic:
        paged = [model.id async for model in await anthropic.models.list(limit=2)]
        one = await anthropic.models.retrieve(every[0])

    assert paged == every
    assert one.id == every[0]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=x", "after_id=nothing", "before_id=nothing"]
)
async def test_a_wrong_page_is_named(gateway: Gateway, query: str) -> None:
    client = gateway.with_key()
    client.headers["anthropic-version"] = "2023-06-01"

    answer = await client.get(f"/v1/models?{query}")

    assert answer.status == 400
    assert answer.json["error"]["type"] == "invalid_request_error"
    assert query.partition("=")[0] in answer.json["error"]["message"]
