"""Finding passages in the order of a model that reads each with the question."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from app.models import UsageDay
from app.services.knowledge import asking
from tests.client import Client
from tests.conftest import Server
from tests.fakes.faults import FaultPlan
from tests.fakes.openai import RERANKER, FakeOpenAI
from tests.integration.rows import settled
from tests.integration.test_projects import (
    invite,
    paste,
    project_of,
    search,
    texts,
    user_id,
)

MODEL = f"openai/{RERANKER}"
PRICE = 10  # credits a token
CATALOGUE = f"""
["{MODEL}"]
context_window = 100
max_output_tokens = 0
capabilities = ["reranking"]
prices = {{ input = {PRICE}, output = 0 }}
"""
BY_WORDS = "Petrol, petrol, petrol: a word."
BY_MODEL = "A car takes petrol."
QUESTION = "petrol"


def relevance(_query: str, text: str) -> float:
    return 0.9 if BY_MODEL in text else 0.1


@pytest.fixture
def variables(fake_openai: FakeOpenAI, tmp_path: Path) -> dict[str, str]:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(CATALOGUE)
    fake_openai.relevance = relevance
    fake_openai.plan.input_tokens = 9  # no more than is reserved for
    return {
        "OPENAI_BASE_URL": fake_openai.base_url,
        "OPENAI_MODELS": f"fake-small, {RERANKER}",
        "MODEL_CATALOGUE": str(catalogue),
        "RERANK_MODEL": MODEL,
        "PROVIDER_RETRIES": "0",
    }


@pytest.fixture
async def server(serve: Any, variables: dict[str, str]) -> AsyncIterator[Server]:
    async with serve(**variables) as server:
        yield server


@pytest.fixture
async def ada(server: Server) -> Client:
    return await server.client("ada")


@pytest.fixture
async def project(server: Server, ada: Client) -> str:
    made = await project_of(ada)
    await paste(ada, made, BY_WORDS)
    await paste(ada, made, BY_MODEL)
    await settled(server)
    return made


async def paid(server: Server, client: Client) -> int:
    """Tokens that went into a user's searches."""
    await server.runtime.credits.flush()
    booked = select(func.sum(UsageDay.input_tokens), func.sum(UsageDay.credits)).where(
        UsageDay.user_id == await user_id(client), UsageDay.kind == "knowledge"
    )
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        tokens, credits_ = (await session.execute(booked)).one()
    assert int(credits_ or 0) == int(tokens or 0) * PRICE
    return int(tokens or 0)


async def test_the_model_orders_what_was_found(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2: who asks pays for it, by the provider's figures."""
    bob = await server.client("bob")
    await invite(ada, project, "bob")

    found = (await search(bob, project, QUESTION)).json["items"]

    assert [item["text"] for item in found] == [BY_MODEL, BY_WORDS]
    assert [item["score"] for item in found] == [0.9, 0.1]
    [call] = fake_openai.calls
    assert call.body["query"] == QUESTION
    assert sorted(text.rpartition("\n")[2] for text in call.body["documents"]) == (
        sorted([BY_MODEL, BY_WORDS])
    )
    assert (await paid(server, bob), await paid(server, ada)) == (9, 0)


async def test_only_as_many_come_as_are_asked_for(ada: Client, project: str) -> None:
    found = await ada.get(f"/projects/{project}/search?q={QUESTION}&limit=1")

    assert [item["text"] for item in found.json["items"]] == [BY_MODEL]


async def test_a_turn_gets_passages_in_that_order(
    ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    await ada.patch(f"/projects/{project}", json={"context_mode": "retrieval"})
    chat = await ada.chat(model="openai/fake-small", project_id=project, title="Cars")

    await ada.ask(chat, QUESTION)

    prompt = json.dumps(fake_openai.calls[-1].body["messages"])
    assert prompt.index(BY_MODEL) < prompt.index(BY_WORDS)


async def test_a_turn_pays_nothing_for_the_order_that_its_preview_showed(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2: what was paid is not paid again; another text is another order."""
    await ada.patch(f"/projects/{project}", json={"context_mode": "retrieval"})
    chat = await ada.chat(model="openai/fake-small", project_id=project, title="Cars")
    assert (await ada.get(f"/projects/{project}/context?q={QUESTION}")).status == 200

    await ada.ask(chat, QUESTION)
    once = await paid(server, ada)
    await paste(ada, project, "Petrol is dear.")
    await settled(server)
    await ada.ask(chat, QUESTION)

    orders = [call for call in fake_openai.calls if "documents" in call.body]
    assert [len(call.body["documents"]) for call in orders] == [2, 3]
    assert (once, await paid(server, ada)) == (9, 18)


async def test_what_is_too_long_for_the_model_is_cut(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    await paste(ada, project, f"Petrol. {'word ' * 300}")
    await settled(server)

    await texts(ada, project, f"petrol {'car ' * 100}")

    [call] = fake_openai.calls
    sent = [call.body["query"], *call.body["documents"]]
    assert max(map(len, sent)) == 150  # half of 100 tokens, of 3 bytes each


async def test_a_single_passage_and_none_ask_nobody(
    ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    assert await texts(ada, project, "car") == [BY_MODEL]
    assert await texts(ada, project, "zebra") == []

    assert fake_openai.calls == []


async def test_who_is_not_in_the_project_asks_nobody(
    server: Server, project: str, fake_openai: FakeOpenAI
) -> None:
    bob = await server.client("bob")

    assert (await search(bob, project, QUESTION)).status == 404

    assert fake_openai.calls == []


async def test_where_it_fails_the_search_keeps_its_order_and_leaves_it_alone(
    server: Server,
    ada: Client,
    project: str,
    fake_openai: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake_openai.plan = FaultPlan(faults=["unavailable"], input_tokens=9)

    for _ in range(2):  # it rests after the first
        assert await texts(ada, project, QUESTION) == [BY_WORDS, BY_MODEL]
    assert len(fake_openai.calls) == 1
    assert await paid(server, ada) == 0

    monkeypatch.setattr(server.runtime.retrieval._reranking._asking, "_rests_until", 0)
    assert await texts(ada, project, QUESTION) == [BY_MODEL, BY_WORDS]


async def test_nobody_waits_long_for_it(
    ada: Client,
    project: str,
    fake_openai: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking, "_PATIENCE", 0.5)  # enough to be asked in
    fake_openai.plan = FaultPlan(faults=["stall"])

    assert await texts(ada, project, QUESTION) == [BY_WORDS, BY_MODEL]
    assert await texts(ada, project, QUESTION) == [BY_WORDS, BY_MODEL]

    assert len(fake_openai.calls) == 1


async def test_who_cannot_pay_gets_the_searchs_own_order(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    """TRUST M1. The next one who can pay is not kept from it."""
    admin = await server.admin("plans")
    bob = await server.client("bob")
    path = f"/admin/users/{await invite(ada, project, 'bob')}/limits"
    assert (await admin.put(path, json={"monthly_credits": 1})).status == 204

    assert await texts(bob, project, QUESTION) == [BY_WORDS, BY_MODEL]
    assert fake_openai.calls == []
    assert await texts(ada, project, QUESTION) == [BY_MODEL, BY_WORDS]


async def test_a_key_that_may_not_call_the_model_searches_without_it(
    server: Server, ada: Client, project: str
) -> None:
    """TRUST K2."""
    form = {"name": "a key", "scopes": ["read"], "models": ["openai/fake-small"]}
    made = await ada.post("/apikeys", json=form)
    program = server.anonymous()
    program.headers["Authorization"] = f"Bearer {made.json['key']}"

    assert await texts(program, project, QUESTION) == [BY_WORDS, BY_MODEL]
