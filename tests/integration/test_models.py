"""What admins register of models, and what becomes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import select

from app.core.database import Database
from app.models import AuditEvent
from tests.client import Answer, Client
from tests.conftest import Server
from tests.fakes.bedrock import ACCESS_KEY, REGION, SECRET_KEY, FakeBedrock
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI

MODEL = "openai/fake-small"
PRICES = {"input": "10", "output": "100"}
OF_50_WORDS = 25 * 10 + 50 * 100
"""Credits at these: the fake tells 25 tokens of input, and one for each word."""
LLAMA = "ollama/llama3.2:latest"
NOTHING: dict[str, Any] = {
    "context_window": None,
    "max_output_tokens": None,
    "capabilities": None,
    "prices": None,
}


@pytest.fixture
async def server(serve: Any, fake_openai: FakeOpenAI) -> Any:
    """It offers one of the provider's two models."""
    async with serve(
        OPENAI_BASE_URL=fake_openai.base_url, OPENAI_MODELS="fake-small"
    ) as server:
        yield server


async def register(server: Server, name: str = MODEL, **facts: Any) -> Answer:
    admin = await server.admin("models")
    answer = await admin.post("/models", json={"name": name, **facts})
    assert answer.status == 201, answer.body
    return answer


async def change(server: Server, **facts: Any) -> Answer:
    admin = await server.admin("models")
    answer = await admin.patch(f"/models/{MODEL}", json=facts)
    assert answer.status == 200, answer.body
    return answer


async def names(client: Client) -> list[str]:
    return [m["name"] for m in (await client.get("/models")).json["items"]]


async def becomes(look: Callable[[], Awaitable[Any]], expected: Any) -> None:
    async with asyncio.timeout(10):
        while await look() != expected:  # noqa: ASYNC110 - it is told over HTTP alone
            await asyncio.sleep(0.01)


class TestFacts:
    async def test_of_a_model_are_told_by_its_name(self, server: Server) -> None:
        client = await server.client()

        found = await client.get("/models/guide/manual")
        missing = await client.get("/models/openai/org/none")

        listed = (await client.get("/models")).json["items"]
        assert found.status == 200
        assert found.json in listed
        assert (missing.status, missing.json["code"]) == (404, "not_found")

    async def test_that_are_registered_count_over_the_catalogue_s(
        self, server: Server
    ) -> None:
        client = await server.client()
        before = (await client.get(f"/models/{MODEL}")).json

        made = await register(server, context_window=50_000, prices=PRICES)
        told = made.json
        after = (await client.get(f"/models/{MODEL}")).json

        prices = {**PRICES, "cache_read": "10", "cache_write": "10"}
        assert before["prices"] is None
        assert after == before | {"context_window": 50_000, "prices": prices}
        assert told.pop("registered") == {
            "enabled": True,
            **NOTHING,
            "context_window": 50_000,
            "prices": {**PRICES, "cache_read": None, "cache_write": None},
        }
        assert told == after

    async def test_that_are_null_are_the_catalogue_s_again(
        self, server: Server
    ) -> None:
        client = await server.client()
        before = (await client.get(f"/models/{MODEL}")).json
        await register(
            server,
            context_window=50_000,
            max_output_tokens=100,
            capabilities=["text", "vision"],
            prices=PRICES,
        )

        changed = await change(server, **NOTHING)

        assert changed.json["registered"] == {"enabled": True, **NOTHING}
        assert (await client.get(f"/models/{MODEL}")).json == before

    async def test_that_are_left_out_stay(self, server: Server) -> None:
        await register(server, context_window=50_000)

        changed = await change(server, max_output_tokens=100)

        assert changed.json["registered"]["context_window"] == 50_000
        assert changed.json["max_output_tokens"] == 100

    async def test_reach_the_provider(
        self, server: Server, fake_openai: FakeOpenAI
    ) -> None:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        await register(server, max_output_tokens=100)

        await client.reply(chat, "Say 5 words")

        assert fake_openai.calls[-1].body["max_tokens"] == 100

    async def test_reach_ollama_and_bedrock(
        self, serve: Any, fake_ollama: FakeOllama, fake_bedrock: FakeBedrock
    ) -> None:
        """These ask the catalogue once more, as they make their requests."""
        opus = "bedrock/us.anthropic.claude-opus-5"
        async with serve(
            OLLAMA_BASE_URL=fake_ollama.url,
            AWS_REGION=REGION,
            AWS_ACCESS_KEY_ID=ACCESS_KEY,
            AWS_SECRET_ACCESS_KEY=SECRET_KEY,
            BEDROCK_BASE_URL=fake_bedrock.url,
        ) as server:
            client = await server.client()
            await register(server, LLAMA, context_window=5_000)
            await register(server, opus, capabilities=["text"], prices=PRICES)
            for model in (LLAMA, opus):
                await client.reply(await client.chat(model=model, title="-"), "Hi")

        assert fake_ollama.calls[-1].body["options"]["num_ctx"] == 5_000
        assert "cache_control" not in str(fake_bedrock.calls[-1].body)

    async def test_hold_after_a_restart(
        self, serve: Any, fake_openai: FakeOpenAI
    ) -> None:
        variables = {"OPENAI_BASE_URL": fake_openai.base_url}
        async with serve(**variables) as server:
            await register(server, context_window=50_000)
        async with serve(**variables) as server:
            client = await server.client()
            found = await client.get(f"/models/{MODEL}")
        assert found.json["context_window"] == 50_000


class TestEmbeddings:
    """A model that makes vectors of texts is on offer, and for nothing else."""

    EMBEDDER = "openai/text-embedding-3-small"

    @pytest.fixture
    async def server(self, serve: Any, fake_openai: FakeOpenAI) -> Any:
        named = "text-embedding-3-small,fake-small"
        async with serve(
            OPENAI_BASE_URL=fake_openai.base_url, OPENAI_MODELS=named
        ) as server:
            yield server

    async def test_are_listed_with_their_capability(self, server: Server) -> None:
        client = await server.client()

        found = (await client.get(f"/models/{self.EMBEDDER}")).json

        assert self.EMBEDDER in await names(client)
        assert found["capabilities"] == ["embeddings"]
        assert (found["context_window"], found["dimensions"]) == (8192, 1536)
        assert found["prices"]["input"] == "0.02"
        assert (await client.get(f"/models/{MODEL}")).json["dimensions"] is None

    async def test_are_no_model_for_a_chat(self, server: Server) -> None:
        client = await server.client()
        chat = await client.chat(model=MODEL)
        form = {"content": "Hi", "model": self.EMBEDDER}

        refusals = [
            await client.post("/chats", json={"model": self.EMBEDDER}),
            await client.patch(f"/chats/{chat}", json={"model": self.EMBEDDER}),
            await client.post(f"/chats/{chat}/messages", json=form),
        ]

        for refusal in refusals:
            assert (refusal.status, refusal.json["code"]) == (400, "unfit_model")
            assert f"{self.EMBEDDER} does not chat" in refusal.json["detail"]

    async def test_are_never_the_default(self, server: Server) -> None:
        client = await server.client()
        admin = await server.admin("settings")
        form = {"default_model": self.EMBEDDER}

        made = await client.post("/chats", json={})
        refused = await admin.patch("/admin/settings", json=form)

        assert made.json["model"] == MODEL
        assert (refused.status, refused.json["code"]) == (400, "unfit_model")

    async def test_can_be_priced_and_said_of_a_model(self, server: Server) -> None:
        priced = await register(server, self.EMBEDDER, prices=PRICES)
        told = await register(server, "openai/bge-m3", capabilities=["embeddings"])

        assert priced.json["prices"]["input"] == "10"
        assert told.json["capabilities"] == ["embeddings"]


class TestPrices:
    async def test_are_those_of_the_next_call(self, server: Server) -> None:
        """TRUST M2."""
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        free = await client.reply(chat, "Say 50 words")

        await register(server, prices=PRICES)
        priced = await client.reply(chat, "Say 50 words")
        await change(server, prices={"input": 20, "output": 200})
        dearer = await client.reply(chat, "Say 50 words")

        credits_ = [reply["credits"] for reply in (free, priced, dearer)]
        assert credits_ == [0, OF_50_WORDS, 2 * OF_50_WORDS]

    async def test_are_what_is_reserved(
        self, server: Server, fake_openai: FakeOpenAI
    ) -> None:
        """TRUST M1: who cannot pay the new price is refused before the call."""
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        await register(server, prices={"input": 1_000_000, "output": 1_000_000})

        answer = await client.post(
            f"/chats/{chat}/messages", json={"content": "Say 50 words"}
        )

        assert (answer.status, answer.json["code"]) == (402, "insufficient_credits")
        assert fake_openai.calls == []

    async def test_reach_another_process_at_once(
        self, serve: Any, fake_openai: FakeOpenAI, redis_url: str
    ) -> None:
        variables = {"OPENAI_BASE_URL": fake_openai.base_url, "REDIS_URL": redis_url}
        async with serve(**variables) as one, serve(**variables) as other:
            client = await other.client()
            chat = await client.chat(model=MODEL, title="Named")
            await register(one, prices=PRICES)

            async def priced() -> bool:
                found = await client.get(f"/models/{MODEL}")
                return found.json["prices"] is not None

            async with asyncio.timeout(2):
                await becomes(priced, expected=True)
            reply = await client.reply(chat, "Say 50 words")
        assert reply["credits"] == OF_50_WORDS


class TestOffer:
    async def test_has_what_the_settings_do_not_name(
        self, server: Server, fake_openai: FakeOpenAI
    ) -> None:
        client = await server.client()
        form = {"model": "openai/fake-large", "title": "Named"}
        refused = await client.post("/chats", json=form)

        await register(server, "openai/fake-large")
        reply = await client.reply(await client.chat(**form), "Say 5 words")

        assert (refused.status, refused.json["code"]) == (400, "unknown_model")
        assert reply["model"] == "openai/fake-large"
        assert fake_openai.calls[-1].body["model"] == "fake-large"
        assert (await names(client)).count("openai/fake-large") == 1

    async def test_lacks_what_admins_took_out(
        self, server: Server, fake_openai: FakeOpenAI
    ) -> None:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        await register(server, enabled=False)

        made = await client.post("/chats", json={"model": MODEL})
        asked = await client.post(f"/chats/{chat}/messages", json={"content": "Hi"})
        by_default = await client.post("/chats", json={})

        for answer in (made, asked):
            assert (answer.status, answer.json["code"]) == (400, "unknown_model")
        assert MODEL not in await names(client)
        assert (await client.get(f"/models/{MODEL}")).status == 404
        assert by_default.json["model"] == "guide/manual"
        assert fake_openai.calls == []

        await change(server, enabled=True)
        assert (await client.reply(chat, "Say 5 words"))["status"] == "complete"

    async def test_is_shown_to_admins_with_all_that_is_not_in_it(
        self, server: Server
    ) -> None:
        admin = await server.admin("models")
        await register(server, enabled=False)
        await register(server, "anthropic/unheard-of")

        listed = (await admin.get("/admin/models")).json["items"]

        found = {model["name"]: model for model in listed}
        assert len(found) == len(listed)
        assert found["guide/manual"]["registered"] is None
        assert found[MODEL]["registered"] == {"enabled": False, **NOTHING}
        # Nobody has told a key of Anthropic's.
        for name in (MODEL, "anthropic/unheard-of"):
            assert found[name]["available"] is False


class TestDeletion:
    async def test_gives_a_model_back_to_its_provider(self, server: Server) -> None:
        client, admin = await server.client(), await server.admin("models")
        before = await client.get("/models")
        await register(server, "openai/fake-large")
        await register(server, context_window=50_000)

        for name in (MODEL, "openai/fake-large"):
            assert (await admin.delete(f"/models/{name}")).status == 204
            assert (await admin.delete(f"/models/{name}")).status == 404

        assert (await client.get("/models")).json == before.json

    async def test_is_refused_while_a_chat_names_it(self, server: Server) -> None:
        client, admin = await server.client(), await server.admin("models")
        chat = await client.chat(model=MODEL)
        await register(server)

        refused = await admin.delete(f"/models/{MODEL}")
        await client.delete(f"/chats/{chat}")
        deleted = await admin.delete(f"/models/{MODEL}")

        assert (refused.status, refused.json["code"]) == (409, "model_in_use")
        assert deleted.status == 204

    async def test_is_refused_while_an_api_key_names_it(self, server: Server) -> None:
        client, admin = await server.client(), await server.admin("models")
        form = {"name": "narrow", "models": ["guide/*", MODEL]}
        key = (await client.post("/apikeys", json=form)).json["id"]
        await register(server)
        await register(server, "openai/fake-s")  # a part of the name is another one

        refused = await admin.delete(f"/models/{MODEL}")
        another = await admin.delete("/models/openai/fake-s")
        await client.delete(f"/apikeys/{key}")
        deleted = await admin.delete(f"/models/{MODEL}")

        assert (refused.status, refused.json["code"]) == (409, "model_in_use")
        assert another.status == deleted.status == 204


@pytest.mark.parametrize(
    ("form", "path"),
    [
        ({"name": "fake-small"}, "name"),
        ({"name": "openai/two words"}, "name"),
        ({"context_window": 0}, "context_window"),
        ({"context_window": 2**31}, "context_window"),
        ({"capabilities": ["magic"]}, "capabilities"),
        ({"prices": {"input": 1}}, "prices"),
        ({"prices": {"input": -1, "output": 1}}, "prices"),
        ({"prices": {"input": "NaN", "output": 1}}, "prices"),
        ({"context_window": 1000, "max_output_tokens": 1000}, "max_output_tokens"),
        ({"price": 1}, "price"),
    ],
)
async def test_what_describes_no_model_is_refused(
    server: Server, form: dict[str, Any], path: str
) -> None:
    admin = await server.admin("models")

    answer = await admin.post("/models", json={"name": MODEL, **form})

    assert answer.status == 422
    assert answer.json["errors"][0]["path"].split(".")[0] == path


async def test_a_model_of_no_provider_is_refused(server: Server) -> None:
    admin = await server.admin("models")

    answer = await admin.post("/models", json={"name": "nobody/model"})

    assert (answer.status, answer.json["code"]) == (400, "unknown_provider")
    assert "openai/" in answer.json["detail"]


async def test_a_model_is_registered_once(server: Server) -> None:
    admin = await server.admin("models")
    await register(server)

    answer = await admin.post("/models", json={"name": MODEL})

    assert (answer.status, answer.json["code"]) == (409, "model_taken")


async def test_twins_register_a_model_once(server: Server) -> None:
    admin = await server.admin("models")
    headers = {"Idempotency-Key": "one"}

    answers = await asyncio.gather(
        *(
            admin.post("/models", json={"name": MODEL}, headers=headers)
            for _ in range(4)
        )
    )

    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1


async def test_every_change_is_audited(server: Server, database: Database) -> None:
    """TRUST D2."""
    admin = await server.admin("models")
    await register(server, prices=PRICES)
    await change(server, enabled=False)
    await admin.delete(f"/models/{MODEL}")

    async with database.unit_of_work(read_only=True) as session:
        events = await session.scalars(
            select(AuditEvent)
            .where(AuditEvent.action.startswith("model."))
            .order_by(AuditEvent.seq)
        )
        told = [(e.action, e.actor_kind, e.target_kind, e.details) for e in events]
    given: dict[str, Any] = {"name": MODEL, "enabled": True, **NOTHING}
    given["prices"] = {**PRICES, "cache_read": None, "cache_write": None}
    ip = {"ip": "127.0.0.1"}
    assert told == [
        ("model.register", "admin", "model", ip | {"after": given}),
        (
            "model.change",
            "admin",
            "model",
            ip | {"before": given, "after": given | {"enabled": False}},
        ),
        ("model.delete", "admin", "model", ip | {"before": given | {"enabled": False}}),
    ]


async def test_changes_come_from_where_the_desk_may_be_used(serve: Any) -> None:
    async with serve(DESK_IP_DENY="127.0.0.0/8") as server:
        client = await server.client()
        for method, path in (
            ("POST", "/models"),
            ("PATCH", "/models/guide/manual"),
            ("DELETE", "/models/guide/manual"),
        ):
            answer = await server.anonymous().request(method, path, json={})
            assert (answer.status, answer.json["code"]) == (403, "address_refused")
        assert (await client.get("/models")).status == 200
