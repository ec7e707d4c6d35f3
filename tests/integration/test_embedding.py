"""Finding passages by what they mean: by the vectors of a model for embeddings."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from app.models import Chunk, ChunkVector, ProjectDocument, UsageDay
from app.services.audit import SYSTEM
from app.services.knowledge import asking as asking_module
from app.services.knowledge import embedding as embedding_module
from app.services.knowledge.counts import Counts
from app.services.knowledge.embedding import Embedding
from app.services.knowledge.search import search as search_in
from app.services.knowledge.vectors import packed
from tests.client import Client
from tests.conftest import Server
from tests.fakes.faults import FaultPlan
from tests.fakes.openai import EMBEDDER, FakeOpenAI
from tests.integration.providers import FAKES, variables_for
from tests.integration.rows import settled
from tests.integration.test_knowledge import count
from tests.integration.test_projects import (
    invite,
    paste,
    project_of,
    search,
    texts,
    user_id,
)

MODEL = f"openai/{EMBEDDER}"
PRICE = 10  # credits a token
CATALOGUE = f"""
["{MODEL}"]
context_window = 8192
max_output_tokens = 1
capabilities = ["embeddings"]
prices = {{ input = {PRICE}, output = 0 }}
"""
CARS = "The automobile needs petrol."
HORSES = "A zebra is a striped horse."
TOPICS = (
    {"car", "automobile", "vehicle", "petrol", "fuel"},
    {"zebra", "horse", "pony", "striped", "stripes"},
    {"ship", "boat", "sail", "harbour"},
)
"""Words that mean much the same: what a model knows, and an index of words does not."""


def meaning(text: str, length: int) -> list[float]:
    """A number for each topic, and a little of something else."""
    words = text.lower().replace(".", " ").replace("?", " ").split()
    about = [float(sum(word in topic for word in words)) for topic in TOPICS]
    return [*about, *[0.1] * (length - len(about))]


@pytest.fixture
def catalogue(tmp_path: Path) -> Path:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(CATALOGUE)
    return catalogue


@pytest.fixture
def small(catalogue: Path) -> None:
    """A model that takes 20 tokens."""
    catalogue.write_text(CATALOGUE.replace("8192", "20"))


@pytest.fixture
def variables(fake_openai: FakeOpenAI, catalogue: Path) -> dict[str, str]:
    fake_openai.meaning = meaning
    fake_openai.plan.input_tokens = 2  # no more than is reserved for
    return {
        "OPENAI_BASE_URL": fake_openai.base_url,
        "MODEL_CATALOGUE": str(catalogue),
        "EMBEDDING_MODEL": MODEL,
        "PROVIDER_RETRIES": "0",
    }


@pytest.fixture
async def server(serve: Any, variables: dict[str, str]) -> AsyncIterator[Server]:
    async with serve(**variables) as server:
        await settled(server)  # what is begun at the start has found nothing to do
        yield server


@pytest.fixture
async def ada(server: Server) -> Client:
    return await server.client("ada")


@pytest.fixture
async def project(server: Server, ada: Client) -> str:
    """About cars and about horses, and embedded."""
    made = await project_of(ada)
    await paste(ada, made, CARS)
    await paste(ada, made, HORSES)
    await settled(server)
    return made


def asked(fake: FakeOpenAI) -> list[list[str]]:
    return [call.body["input"] for call in fake.calls]


async def paid(server: Server, client: Client) -> int:
    """Tokens that went into what a user's projects were embedded and searched with."""
    await server.runtime.credits.flush()
    booked = select(func.sum(UsageDay.input_tokens), func.sum(UsageDay.credits)).where(
        UsageDay.user_id == await user_id(client), UsageDay.kind == "knowledge"
    )
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        tokens, credits_ = (await session.execute(booked)).one()
    assert int(credits_ or 0) == int(tokens or 0) * PRICE
    return int(tokens or 0)


async def documents_of(server: Server, project: str) -> list[ProjectDocument]:
    of_project = ProjectDocument.project_id == UUID(project)
    listed = select(ProjectDocument).where(of_project).order_by(ProjectDocument.id)
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        return list((await session.scalars(listed)).all())


# Finding ----------------------------------------------------------------------------


async def test_what_means_the_same_is_found_without_a_word_in_common(
    server: Server, ada: Client, project: str
) -> None:
    found = (await search(ada, project, "Which fuel does my car take?")).json["items"]

    assert [item["text"] for item in found] == [CARS, HORSES]
    assert 0 < found[1]["score"] < found[0]["score"] <= 1
    assert (await texts(ada, project, "pony"))[0] == HORSES


async def test_without_a_model_words_alone_are_searched(
    serve: Any, variables: dict[str, str], fake_openai: FakeOpenAI
) -> None:
    async with serve(**variables | {"EMBEDDING_MODEL": ""}) as server:
        ada = await server.client()
        project = await project_of(ada)
        await paste(ada, project, CARS)
        await settled(server)

        assert await texts(ada, project, "fuel for a car") == []
        assert await texts(ada, project, "petrol") == [CARS]
    assert fake_openai.calls == []


async def test_a_turn_gets_passages_by_what_they_mean(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    await ada.patch(f"/projects/{project}", json={"context_mode": "retrieval"})
    chat = await ada.chat(model="openai/fake-small", project_id=project, title="Cars")

    await ada.ask(chat, "Which fuel does my car take?")

    prompt = json.dumps(fake_openai.calls[-1].body["messages"])
    assert prompt.index(CARS) < prompt.index(HORSES)


async def test_a_question_is_one_call_and_is_remembered(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    before = len(fake_openai.calls)

    first = await texts(ada, project, "a vehicle")
    again = await texts(ada, project, "a vehicle")

    assert asked(fake_openai)[before:] == [["a vehicle"]]
    assert again == first


async def test_a_search_of_blanks_asks_nobody(
    ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    before = len(fake_openai.calls)

    assert await texts(ada, project, "   ") == []

    assert len(fake_openai.calls) == before


# What it costs ----------------------------------------------------------------------


async def test_the_owner_pays_for_the_index_and_who_asks_for_the_question(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2."""
    bob = await server.client("bob")
    await invite(ada, project, "bob", "editor")
    tokens = fake_openai.plan.input_tokens
    index = await paid(server, ada)

    await texts(bob, project, "a vehicle")
    await texts(ada, project, "a vehicle")  # her own call: she learns of none of his
    await paste(bob, project, "A boat in the harbour.")
    await settled(server)

    assert index == 2 * tokens
    assert await paid(server, bob) == tokens
    assert await paid(server, ada) == index + 2 * tokens


async def test_who_cannot_pay_searches_by_words(
    server: Server, ada: Client, project: str
) -> None:
    """TRUST M1."""
    admin = await server.admin("plans")
    bob = await server.client("bob")
    path = f"/admin/users/{await invite(ada, project, 'bob')}/limits"
    assert (await admin.put(path, json={"monthly_credits": 1})).status == 204
    own = await project_of(bob)
    await paste(bob, own, CARS)
    await settled(server)

    for of_bob in (project, own):
        assert await texts(bob, of_bob, "car") == []
        assert await texts(bob, of_bob, "petrol") == [CARS]
    assert [one.embedded for one in await documents_of(server, own)] == [0]
    assert await paid(server, bob) == 0


@pytest.mark.parametrize(
    "limits", [{"models": ["openai/fake-small"]}, {"daily_credit_limit": 1}]
)
async def test_limits_of_a_key_hold_for_its_questions(
    server: Server, ada: Client, project: str, limits: dict[str, Any]
) -> None:
    """TRUST K2."""
    form = {"name": "a key", "scopes": ["read"]}
    free = await ada.post("/apikeys", json=form)
    limited = await ada.post("/apikeys", json={**form, **limits})
    assert (free.status, limited.status) == (201, 201)
    program = server.anonymous()

    program.headers["Authorization"] = f"Bearer {limited.json['key']}"
    assert await texts(program, project, "car") == []
    program.headers["Authorization"] = f"Bearer {free.json['key']}"
    assert await texts(program, project, "car") == [CARS, HORSES]


async def test_a_key_that_may_not_call_the_model_has_turns_by_words(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    """TRUST K2."""
    await ada.patch(f"/projects/{project}", json={"context_mode": "retrieval"})
    chat = await ada.chat(model="openai/fake-small", project_id=project, title="Cars")
    form = {"name": "a key", "scopes": ["chat"], "models": ["openai/fake-small"]}
    made = await ada.post("/apikeys", json=form)
    program = server.anonymous()
    program.headers["Authorization"] = f"Bearer {made.json['key']}"
    before = len(fake_openai.calls)

    await program.ask(chat, "Does my car take petrol?")

    (turn,) = fake_openai.calls[before:]
    prompt = json.dumps(turn.body["messages"])
    assert CARS in prompt
    assert HORSES not in prompt


# The index --------------------------------------------------------------------------


async def test_a_document_is_found_by_words_while_its_model_is_away(
    server: Server, ada: Client, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan = FaultPlan(faults=["unavailable"] * 2)
    project = await project_of(ada)
    await paste(ada, project, CARS)
    await settled(server)
    assert await texts(ada, project, "petrol") == [CARS]
    assert await texts(ada, project, "car") == []
    assert await paid(server, ada) == 0

    fake_openai.plan = FaultPlan()
    await server.runtime.embedding.embed_missing()

    assert await texts(ada, project, "car") == [CARS]


async def test_a_model_that_is_away_is_not_asked_for_each_document(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    await forget(server, project)
    fake_openai.plan = FaultPlan(faults=["unavailable"] * 9)
    before = len(fake_openai.calls)

    await server.runtime.embedding.embed_missing()

    assert len(fake_openai.calls) == before + 1


async def forget(server: Server, project: str, embedder: str | None = None) -> None:
    """As it is where nothing was embedded, or another model did it."""
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(
            update(ProjectDocument)
            .where(ProjectDocument.project_id == UUID(project))
            .values(embedder=embedder)
        )


async def test_another_model_makes_all_vectors_anew(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    await forget(server, project, "openai/the-one-before")
    # Those of another model are not compared with this one's.
    assert await texts(ada, project, "car") == []
    before = len(fake_openai.calls)

    await server.runtime.embedding.embed_missing()
    await server.runtime.embedding.embed_missing()  # there is nothing left to do

    assert len(fake_openai.calls) == before + 2
    assert await texts(ada, project, "car") == [CARS, HORSES]
    assert await count(server.runtime.database, ChunkVector) == 2


async def test_a_new_text_has_new_vectors_and_no_old_ones(
    server: Server, ada: Client, project: str
) -> None:
    document = await paste(ada, project, "A boat in the harbour.")
    await settled(server)
    assert (await texts(ada, project, "ship"))[0] == "A boat in the harbour."

    path = f"/projects/{project}/documents/{document}"
    await ada.patch(path, json={"text": "Stripes of a pony."})
    await settled(server)

    assert "A boat in the harbour." not in await texts(ada, project, "ship")
    assert "Stripes of a pony." in (await texts(ada, project, "horse"))[:2]
    assert await count(server.runtime.database, ChunkVector) == 3


async def test_a_long_document_is_embedded_in_batches(
    server: Server, ada: Client, fake_openai: FakeOpenAI
) -> None:
    project = await project_of(ada)
    lines = "\n\n".join(f"## Part {n}\n\nHorse number {n}." for n in range(900))

    await paste(ada, project, f"{lines}\n\n## Part 900\n\n{CARS}")
    await settled(server)

    (document,) = await documents_of(server, project)
    assert document.embedded == document.chunks > embedding_module._BATCH
    assert max(map(len, asked(fake_openai))) == embedding_module._BATCH
    assert sum(map(len, asked(fake_openai))) == document.chunks
    assert (await texts(ada, project, "vehicle"))[0].endswith(CARS)


def another(server: Server) -> Embedding:
    """That of another process."""
    runtime = server.runtime
    return Embedding(
        MODEL, database=runtime.database, router=runtime.router, books=runtime.books
    )


async def test_two_jobs_at_once_embed_a_document_once(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    """TRUST F4: in this process it is paid for once, in several stored once."""
    await forget(server, project)
    ids = [document.id for document in await documents_of(server, project)]
    here, before = server.runtime.embedding, len(fake_openai.calls)

    await asyncio.gather(*(here.embed(i) for i in (*ids, *ids)))
    assert len(fake_openai.calls) == before + 2
    await forget(server, project)
    there = another(server)
    await asyncio.gather(*(one.embed(i) for one in (here, there) for i in ids))

    assert await count(server.runtime.database, ChunkVector) == 2
    assert [one.embedded for one in await documents_of(server, project)] == [1, 1]


async def test_vectors_of_a_text_that_has_changed_meanwhile_are_not_stored(
    server: Server, ada: Client, project: str
) -> None:
    embedding = server.runtime.embedding
    await forget(server, project)
    document = (await documents_of(server, project))[0]
    await embedding._take(document.id)
    batch = await embedding._batch(document.id)
    assert batch is not None

    path = f"/projects/{project}/documents/{document.id}"
    await ada.patch(path, json={"text": "A boat."})

    assert not await embedding._store(batch, [packed([1.0, 0.0])])


@pytest.mark.usefixtures("small")
async def test_what_is_too_long_for_the_model_is_cut_off(
    server: Server, ada: Client, fake_openai: FakeOpenAI
) -> None:
    project = await project_of(ada)

    await paste(ada, project, "Ägypten " * 100)
    await settled(server)

    ((text,),) = asked(fake_openai)
    # 60 bytes, but for the first half of a letter.
    assert text == "A note\n" + "Ägypten " * 5 + "Ägypten"
    assert (await documents_of(server, project))[0].embedded == 1


# Failures ---------------------------------------------------------------------------


async def test_where_the_model_fails_words_find_and_nobody_waits_again(
    ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    """TRUST F3: a search is answered without it."""
    fake_openai.plan = FaultPlan(faults=["unavailable"] * 9)
    before = len(fake_openai.calls)

    assert await texts(ada, project, "petrol") == [CARS]
    assert await texts(ada, project, "zebra") == [HORSES]

    assert len(fake_openai.calls) == before + 1


async def test_a_model_that_is_slow_is_not_waited_for(
    ada: Client,
    project: str,
    fake_openai: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(asking_module, "_PATIENCE", 0.05)
    fake_openai.plan = FaultPlan(faults=["stall"], at_chunk=0)

    assert await texts(ada, project, "petrol") == [CARS]

    call = fake_openai.calls[-1]
    async with asyncio.timeout(10):
        await call.ended.wait()
    assert call.outcome == "dropped"


async def test_vectors_of_another_length_are_not_compared(
    ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    fake_openai.meaning = lambda text, length: meaning(text, length - 1)
    assert await texts(ada, project, "petrol") == [CARS]

    fake_openai.meaning = meaning
    assert await texts(ada, project, "car") == [CARS, HORSES]


async def test_a_question_that_is_refused_stops_no_other(
    ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    fake_openai.meaning = lambda *_: []  # no vector at all: the answer is senseless
    before = len(fake_openai.calls)
    assert await texts(ada, project, "petrol") == [CARS]

    fake_openai.meaning = meaning
    assert await texts(ada, project, "car") == [CARS, HORSES]
    assert len(fake_openai.calls) == before + 2


# Isolation --------------------------------------------------------------------------


async def test_vectors_reach_nobody_outside_of_their_project(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    """TRUST A1."""
    bob = await server.client("bob")
    other = await project_of(bob)
    await paste(bob, other, "Of bob's vehicle.")
    await settled(server)
    before = len(fake_openai.calls)

    strange = await search(bob, project, "car")

    assert strange.status == 404
    assert len(fake_openai.calls) == before  # nobody pays for that
    assert await texts(bob, other, "car") == ["Of bob's vehicle."]
    assert await texts(ada, project, "car") == [CARS, HORSES]
    near = await server.runtime.embedding.near(
        await user_id(bob), UUID(project), "car", key=None
    )
    assert near == []


async def test_a_number_that_became_another_projects_shows_nothing_of_it(
    server: Server, ada: Client, project: str
) -> None:
    """TRUST A1: SQLite gives the number of a deleted chunk to the next one."""
    database = server.runtime.database
    other = await project_of(ada)
    async with database.unit_of_work(read_only=True) as session:
        chunks = (await session.scalars(select(Chunk.id))).all()

        found = await search_in(
            session, UUID(other), "car", limit=9, near=chunks, counts=Counts()
        )
        own = await search_in(
            session, UUID(project), "car", limit=9, near=chunks, counts=Counts()
        )

    assert found == []
    assert len(own) == 2


async def test_who_has_left_finds_nothing(
    server: Server, ada: Client, project: str
) -> None:
    """TRUST A1."""
    bob = await server.client("bob")
    bob_id = await invite(ada, project, "bob")
    assert await texts(bob, project, "car") == [CARS, HORSES]

    await ada.delete(f"/projects/{project}/members/{bob_id}")

    assert (await search(bob, project, "car")).status == 404


async def test_deletion_and_erasure_leave_no_vector(
    server: Server, ada: Client, project: str
) -> None:
    """TRUST D3."""
    database = server.runtime.database
    document = await paste(ada, project, "A boat in the harbour.")
    await settled(server)
    assert await count(database, ChunkVector) == 3
    assert (await texts(ada, project, "ship"))[0] == "A boat in the harbour."

    await ada.delete(f"/projects/{project}/documents/{document}")
    assert await count(database, ChunkVector) == 2
    assert await texts(ada, project, "ship") == [CARS, HORSES]

    ada_id = await user_id(ada)
    await ada.delete("/users/me", json={"password": "a long pass phrase"})
    await server.runtime.erasure.erase(SYSTEM, ada_id)
    assert await count(database, ChunkVector) == 0


async def test_of_a_deleted_account_nothing_is_embedded(
    server: Server, ada: Client, project: str, fake_openai: FakeOpenAI
) -> None:
    await forget(server, project)
    await ada.delete("/users/me", json={"password": "a long pass phrase"})
    before = len(fake_openai.calls)

    await server.runtime.embedding.embed_missing()

    assert len(fake_openai.calls) == before


@pytest.mark.parametrize(
    ("provider", "model"),
    [
        ("bedrock", "bedrock/amazon.titan-embed-text-v2:0"),
        ("bedrock", "bedrock/cohere.embed-multilingual-v3"),
        ("ollama", "ollama/nomic-embed-text:latest"),
    ],
)
async def test_any_provider_that_embeds_will_do(
    serve: Any, provider: str, model: str
) -> None:
    async with FAKES[provider]() as fake:
        variables = variables_for(provider, fake) | {"EMBEDDING_MODEL": model}
        async with serve(**variables) as server:
            ada = await server.client()
            project = await project_of(ada)
            for text in (CARS, HORSES):
                await paste(ada, project, text)
            await settled(server)

            # No word of it is a term, so all that is found is near.
            assert set(await texts(ada, project, "Who?")) == {CARS, HORSES}

    assert len(fake.calls) == 3
