"""The guide, and models that give no answer, as other people's clients see them."""

import pytest
from sqlalchemy import select

from app.models import UsageDay
from tests.fakes.openai import EMBEDDER
from tests.integration.gateway import Gateway
from tests.integration.wire import APIS, PATHS, Api, body, ends_well, error_of, text_of

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("running_gateway", ["openai"], indirect=True),
    pytest.mark.parametrize("api", APIS),
]

GUIDE = "guide/manual"


async def test_the_guide_answers_and_costs_nothing(gateway: Gateway, api: Api) -> None:
    asked = body(api, GUIDE, "How do I rotate an API key?", stream=True)

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert ends_well(api, answer.body)
    assert text_of(api, answer.body).startswith("I am the guide")
    assert "rotate" in text_of(api, answer.body)
    runtime = gateway.server.runtime
    await runtime.credits.flush()
    async with runtime.database.unit_of_work(read_only=True) as session:
        found = select(UsageDay).where(UsageDay.model == GUIDE)
        booked = (await session.scalars(found)).one()
    assert (booked.credits, booked.estimated, booked.output_tokens) == (0, 0, 0)


async def test_the_guide_says_the_same_to_every_client(
    gateway: Gateway, api: Api
) -> None:
    said = await gateway.ask(api, "What is a plan?", model=GUIDE)

    assert said == await gateway.ask("chat", "What is a plan?", model=GUIDE)
    assert said.startswith("I am the guide")


async def test_a_model_for_embeddings_does_not_chat(gateway: Gateway, api: Api) -> None:
    asked = body(api, f"openai/{EMBEDDER}", "Say 3 words")

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert answer.status == 400
    error = error_of(api, answer.json)
    assert error.get("code", "unfit_model") == "unfit_model"
    assert "does not chat" in error["message"]
    assert gateway.fake.calls == []


async def test_nobody_hears_of_the_installations_own_key(
    gateway: Gateway, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider takes another one now, and nobody has told the installation."""
    await gateway.ask(api, "Say 3 words")
    monkeypatch.setattr(gateway.fake, "api_key", "sk-another-one")
    asked = body(api, gateway.model, "Say 3 words", stream=True)

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert answer.status == 502  # not the 401 that would blame the client's key
    error = error_of(api, answer.json)
    assert error["type"] == ("api_error" if api == "messages" else "server_error")
    assert b"sk-" not in answer.body
    assert b"Incorrect API key" not in answer.body
