"""Routes: how admins make them, and turns that are asked of one."""

import asyncio
from typing import Any

import pytest
from sqlalchemy import select

from app.core.database import Database
from app.models import AuditEvent, MessageLog, UsageDay
from tests.client import Answer, Client, text_of
from tests.conftest import Server
from tests.fakes.faults import numbered_words
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI
from tests.integration.test_models import PRICES, becomes, register

SMALL, LARGE = "openai/fake-small", "openai/fake-large"
LLAMA = "ollama/llama3.2:latest"
OF_50_WORDS = 25 * 10 + 50 * 100
"""Credits by `PRICES`."""


@pytest.fixture
async def server(serve: Any, fake_openai: FakeOpenAI, fake_ollama: FakeOllama) -> Any:
    variables = {"OPENAI_BASE_URL": fake_openai.base_url, "PROVIDER_RETRIES": "0"}
    async with serve(**variables, OLLAMA_BASE_URL=fake_ollama.url) as server:
        yield server


@pytest.fixture
async def admin(server: Server) -> Client:
    return await server.admin("models")


def form(name: str = "smart", *models: str, **more: Any) -> dict[str, Any]:
    """Deployments that are tried in this order."""
    deployments = [
        {"model": model, "priority": n} for n, model in enumerate(models or (SMALL,))
    ]
    return {"name": name, "deployments": deployments, **more}


async def make(admin: Client, name: str, *models: str, **more: Any) -> Answer:
    answer = await admin.post("/admin/routes", json=form(name, *models, **more))
    assert answer.status == 201, answer.body
    return answer


class TestDesk:
    async def test_a_route_is_made_changed_and_deleted(self, admin: Client) -> None:
        made = await make(admin, "team/fast", SMALL, fallbacks=[LLAMA])
        path = "/admin/routes/team/fast"
        changed = await admin.patch(
            path, json={"deployments": [{"model": LARGE, "requests_per_minute": 9}]}
        )
        found, listed = await admin.get(path), await admin.get("/admin/routes")
        deleted = await admin.delete(path)

        given = {
            "model": SMALL,
            "weight": 1,
            "priority": 0,
            "requests_per_minute": None,
            "tokens_per_minute": None,
            "timeout_seconds": None,
        }
        assert made.json["deployments"] == [given]
        assert changed.json["deployments"] == [
            given | {"model": LARGE, "requests_per_minute": 9}
        ]
        assert changed.json["fallbacks"] == [LLAMA]
        assert found.json == changed.json
        assert listed.json["items"] == [found.json]
        assert deleted.status == 204
        for answer in (await admin.get(path), await admin.delete(path)):
            assert (answer.status, answer.json["code"]) == (404, "not_found")

    @pytest.mark.parametrize(
        ("wrong", "path", "words"),
        [
            ({"name": "openai/smart"}, "name", "begins with a provider's name"),
            ({"name": "no spaces"}, "name", "letters, digits"),
            ({"name": "gpt-*"}, "name", "letters, digits"),
            ({"deployments": []}, "deployments", "at least 1"),
            ({"deployments": [{"model": "openai/x"}]}, "deployments.0.model", "no mod"),
            ({"deployments": [{"model": "other"}]}, "deployments.0.model", "is a rou"),
            (
                {"deployments": [{"model": SMALL}, {"model": SMALL}]},
                "deployments.1.model",
                "twice",
            ),
            (
                {"deployments": [{"model": SMALL, "weight": 0}]},
                "deployments.0.weight",
                "greater",
            ),
            (
                {"deployments": [{"model": SMALL, "timeout_seconds": 0}]},
                "deployments.0.timeout_seconds",
                "greater",
            ),
            ({"fallbacks": ["nothing"]}, "fallbacks.0", "no model and no route"),
            ({"fallbacks": [SMALL]}, "fallbacks.0", "twice"),
            ({"fallbacks": ["smart"]}, "fallbacks.0", "leads back"),
            ({"weight": 1}, "weight", "Extra"),
        ],
    )
    async def test_what_makes_no_route_is_refused_by_field(
        self, admin: Client, wrong: dict[str, Any], path: str, words: str
    ) -> None:
        await make(admin, "other", LARGE)

        answer = await admin.post("/admin/routes", json=form() | wrong)

        assert answer.status == 422
        (error,) = answer.json["errors"]
        assert error["path"] == path
        assert words in error["message"]

    async def test_routes_lead_back_to_none(self, admin: Client) -> None:
        await make(admin, "one")
        await make(admin, "two", LARGE, fallbacks=["one"])
        await make(admin, "three", LLAMA, fallbacks=["two"])

        answer = await admin.patch(
            "/admin/routes/one", json={"fallbacks": [LLAMA, "three"]}
        )

        assert answer.status == 422
        assert answer.json["errors"] == [
            {"path": "fallbacks.1", "message": "leads back to this route"}
        ]
        assert (await admin.get("/admin/routes/one")).json["fallbacks"] == []

    async def test_a_name_is_given_once(self, admin: Client) -> None:
        await make(admin, "smart")

        answer = await admin.post("/admin/routes", json=form())

        assert (answer.status, answer.json["code"]) == (409, "route_taken")

    async def test_what_is_named_is_not_deleted(
        self, server: Server, admin: Client
    ) -> None:
        client = await server.client()
        for name in ("smart", "inner", "keyed"):
            await make(admin, name)
        await make(admin, "outer", LARGE, fallbacks=["inner"])
        chat = await client.chat(model="smart")
        key = {"name": "narrow", "models": ["keyed"]}
        made = (await client.post("/apikeys", json=key)).json["id"]

        for name in ("smart", "inner", "keyed"):
            refused = await admin.delete(f"/admin/routes/{name}")
            assert (refused.status, refused.json["code"]) == (409, "route_in_use")

        await client.delete(f"/chats/{chat}")
        await client.delete(f"/apikeys/{made}")
        await admin.delete("/admin/routes/outer")
        for name in ("smart", "inner", "keyed"):
            assert (await admin.delete(f"/admin/routes/{name}")).status == 204

    async def test_every_change_is_audited(
        self, admin: Client, database: Database
    ) -> None:
        """TRUST D2."""
        await make(admin, "smart")
        await admin.patch("/admin/routes/smart", json={"fallbacks": [LARGE]})
        await admin.delete("/admin/routes/smart")

        async with database.unit_of_work(read_only=True) as session:
            events = await session.scalars(
                select(AuditEvent)
                .where(AuditEvent.action.startswith("route."))
                .order_by(AuditEvent.seq)
            )
            told = [(e.action, e.target_kind, e.details or {}) for e in events]
        (made, _, first), (changed, _, second), (deleted, kind, third) = told
        assert (made, changed, deleted) == (
            "route.create",
            "route.change",
            "route.delete",
        )
        assert kind == "route"
        assert first["after"]["name"] == "smart"
        assert second["before"] == first["after"]
        assert second["after"] == first["after"] | {"fallbacks": [LARGE]}
        assert third["before"] == second["after"]

    async def test_other_processes_and_later_starts_know_it(
        self, serve: Any, fake_openai: FakeOpenAI, redis_url: str
    ) -> None:
        variables = {"OPENAI_BASE_URL": fake_openai.base_url, "REDIS_URL": redis_url}
        async with serve(**variables) as one, serve(**variables) as other:
            client = await other.client()
            await make(await one.admin("models"), "smart")

            async def status() -> Any:
                return (await client.get("/models/smart")).status

            await becomes(status, 200)
        async with serve(**variables) as again:
            assert (await again.runtime.router.candidates("smart"))[0].asked == "smart"


class TestModels:
    async def test_a_route_is_listed_as_what_can_be_relied_on(
        self, server: Server, admin: Client
    ) -> None:
        client = await server.client()
        await register(server, SMALL, context_window=50_000, prices=PRICES)
        await register(server, LARGE, context_window=40_000, max_output_tokens=100)
        await make(admin, "smart", SMALL, LARGE, fallbacks=[LLAMA])

        listed = (await client.get("/models")).json["items"]
        found = (await client.get("/models/smart")).json

        assert listed[0] == found
        assert found == {
            "name": "smart",
            "provider": "route",
            "capabilities": ["text", "tools"],
            "context_window": 40_000,
            "max_output_tokens": 100,
            "dimensions": None,
            "prices": {**PRICES, "cache_read": "10", "cache_write": "10"},
            "available": True,
        }

    async def test_a_route_may_be_the_default(
        self, server: Server, admin: Client
    ) -> None:
        client, settings = (
            await server.client(),
            await server.admin("settings", name="setter"),
        )
        unknown = await settings.patch(
            "/admin/settings", json={"default_model": "smart"}
        )
        await make(admin, "smart")

        changed = await settings.patch(
            "/admin/settings", json={"default_model": "smart"}
        )

        chat = await client.post("/chats", json={})
        assert (unknown.status, unknown.json["code"]) == (400, "unknown_model")
        assert changed.status == 200
        assert chat.json["model"] == "smart"


class TestTurns:
    async def test_the_next_deployment_writes_where_the_first_fails(
        self,
        server: Server,
        admin: Client,
        fake_openai: FakeOpenAI,
        fake_ollama: FakeOllama,
        database: Database,
    ) -> None:
        """TRUST M2: what wrote is paid for, by its own price, and named everywhere."""
        await register(server, LLAMA, prices=PRICES)
        await register(server, SMALL, prices={"input": "1000", "output": "1000"})
        await make(admin, "smart", SMALL, LLAMA)
        fake_openai.plan.faults = ["throttle_first"]
        client = await server.client()
        chat = await client.chat(model="smart", title="Named")

        events = await client.ask(chat, "Say 50 words")

        message = events[-1].data["message"]
        assert events[0].data["model"] == "smart"
        assert text_of(events) == numbered_words(50)
        assert (message["status"], message["model"]) == ("complete", LLAMA)
        assert message["credits"] == OF_50_WORDS
        assert len(fake_openai.calls) == len(fake_ollama.calls) == 1
        await server.runtime.credits.flush()
        async with database.unit_of_work(read_only=True) as session:
            used = (await session.scalars(select(UsageDay))).all()
        assert [(day.model, day.credits) for day in used] == [(LLAMA, OF_50_WORDS)]

        async def logged() -> Any:
            async with database.unit_of_work(read_only=True) as session:
                logs = await session.scalars(select(MessageLog))
                return [(log.model, log.credits) for log in logs]

        await becomes(logged, [(LLAMA, OF_50_WORDS)])

    async def test_the_dearest_that_may_write_is_reserved_for(
        self, server: Server, admin: Client, fake_openai: FakeOpenAI
    ) -> None:
        """TRUST M1."""
        dear = {"input": 1_000_000, "output": 1_000_000}
        await register(server, LARGE, prices=dear)
        await make(admin, "smart", SMALL, fallbacks=[LARGE])
        client = await server.client()
        chat = await client.chat(model="smart", title="Named")

        answer = await client.post(f"/chats/{chat}/messages", json={"content": "Hi"})

        assert (answer.status, answer.json["code"]) == (402, "insufficient_credits")
        assert fake_openai.calls == []

    async def test_what_breaks_off_is_continued_by_the_route(
        self,
        server: Server,
        admin: Client,
        fake_openai: FakeOpenAI,
        fake_ollama: FakeOllama,
    ) -> None:
        """TRUST F3."""
        await make(admin, "smart", SMALL, LLAMA)
        fake_openai.plan.faults = ["cut", "unavailable"]
        client = await server.client()
        chat = await client.chat(model="smart", title="Named")

        begun = await client.ask(chat, "Say 30 words")
        reply, _ = await client.messages(chat)
        path = f"/messages/{reply['id']}/continue"
        async with client.stream("POST", path) as stream:
            more = await stream.all()

        assert (reply["status"], reply["model"]) == ("error", SMALL)
        assert text_of(begun) + text_of(more) == numbered_words(30)
        assert more[-1].data["message"]["model"] == LLAMA
        assert len(fake_openai.calls) == 2
        assert len(fake_ollama.calls) == 1

    async def test_all_that_fail_are_told_of_the_last(
        self,
        server: Server,
        admin: Client,
        fake_openai: FakeOpenAI,
        fake_ollama: FakeOllama,
    ) -> None:
        await make(admin, "smart", SMALL, LLAMA)
        fake_openai.plan.faults = ["throttle_first"]
        fake_ollama.plan.faults = ["unavailable"]
        client = await server.client()

        events = await client.ask(await client.chat(model="smart", title="-"), "Hi")

        assert events[-1].data["problem"]["code"] == "provider_unavailable"
        assert len(fake_openai.calls) == len(fake_ollama.calls) == 1

    async def test_plans_and_keys_go_by_the_route_s_name(
        self, server: Server, admin: Client
    ) -> None:
        """TRUST K2: the key names the route, not what is behind it; and the reverse."""
        await make(admin, "smart", SMALL)
        client = await server.client()
        chats = {name: await client.chat(model=name) for name in ("smart", SMALL)}

        async def answers(patterns: list[str]) -> list[int]:
            scoped = {"name": "k", "models": patterns, "scopes": ["chat"]}
            key = await client.post("/apikeys", json=scoped)
            headers = {"Authorization": f"Bearer {key.json['key']}"}
            return [
                (
                    await server.anonymous().post(
                        f"/chats/{chat}/messages",
                        json={"content": "Say 2 words", "stream": False},
                        headers=headers,
                    )
                ).status
                for chat in chats.values()
            ]

        assert await answers(["sma*"]) == [201, 403]
        assert await answers(["openai/*"]) == [403, 201]

    async def test_a_model_that_cannot_see_is_left_out(
        self,
        server: Server,
        admin: Client,
        fake_openai: FakeOpenAI,
        fake_ollama: FakeOllama,
    ) -> None:
        await register(server, LARGE, capabilities=["text", "vision"])
        await make(admin, "smart", LLAMA, LARGE)
        client = await server.client()
        chat = await client.chat(model="smart", title="Named")
        pixel = (
            "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9"
            "awAAAABJRU5ErkJggg=="
        )
        image = {"type": "base64", "media_type": "image/png", "data": pixel}
        content = [
            {"type": "text", "text": "Say 3 words"},
            {"type": "image", "source": image},
        ]

        answer = await client.post(
            f"/chats/{chat}/messages",
            json={"content": content, "stream": False},
        )

        assert answer.json["model"] == LARGE
        assert len(fake_openai.calls) == 1
        assert fake_ollama.calls == []

    async def test_titles_take_the_same_ways(
        self,
        server: Server,
        admin: Client,
        fake_openai: FakeOpenAI,
        fake_ollama: FakeOllama,
    ) -> None:
        await make(admin, "smart", "guide/manual", SMALL, LLAMA)
        fake_openai.plan.faults = ["unavailable"]
        fake_ollama.plan.text = "A name"
        client = await server.client()
        chat = await client.chat(model="smart")

        await client.ask(chat, "What is the guide?")

        async def title() -> Any:
            return (await client.get(f"/chats/{chat}")).json["title"]

        await becomes(title, "A name")
        assert len(fake_openai.calls) == len(fake_ollama.calls) == 1


async def test_twins_make_a_route_once(server: Server, admin: Client) -> None:
    headers = {"Idempotency-Key": "one"}

    answers = await asyncio.gather(
        *(admin.post("/admin/routes", json=form(), headers=headers) for _ in range(4))
    )

    assert {answer.status for answer in answers} == {201}
    assert len({answer.body for answer in answers}) == 1
