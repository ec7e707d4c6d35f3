"""Settings that admins change while the server runs, and what becomes of it."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update
from uuid_utils.compat import uuid7

from app.core.config import CHANGEABLE
from app.core.database import Database, utcnow
from app.models import AuditEvent, DeletedUser, MessageLog, Setting, first_id
from app.schemas.setting import SettingsUpdate
from app.tasks.message_log import purge
from tests.client import Answer, Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI

MODEL = "openai/fake-small"
# The tests' own settings name it, and what the environment sets is fixed.
WITHOUT = {"RATE_LIMITS": ""}


@pytest.fixture
async def server(serve: Any, fake_openai: FakeOpenAI) -> Any:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url, **WITHOUT) as server:
        yield server


async def change(server: Server, **values: Any) -> Answer:
    return await (await server.admin("settings")).patch("/admin/settings", json=values)


async def changed(server: Server, **values: Any) -> dict[str, Any]:
    """By name, after a change that is taken."""
    answer = await change(server, **values)
    assert answer.status == 200, answer.body
    return {one["name"]: one for one in answer.json["items"]}


async def listed(server: Server) -> dict[str, Any]:
    admin = await server.admin("settings")
    items = (await admin.get("/admin/settings")).json["items"]
    return {one["name"]: one for one in items}


async def becomes(look: Callable[[], Awaitable[Any]], expected: Any) -> None:
    async with asyncio.timeout(10):
        while await look() != expected:  # noqa: ASYNC110 - it is told over HTTP alone
            await asyncio.sleep(0.01)


def test_the_form_has_what_may_be_changed() -> None:
    assert [name.upper() for name in SettingsUpdate.model_fields] == list(CHANGEABLE)


class TestList:
    async def test_tells_of_each_what_it_is_and_where_it_came_from(
        self, serve: Any
    ) -> None:
        async with serve(**WITHOUT, MESSAGE_LOG_DAYS="7") as server:
            await changed(server, max_output_tokens=100)
            found = await listed(server)

        assert [name.upper() for name in found] == list(CHANGEABLE)
        told = {name: (s["value"], s["source"]) for name, s in found.items()}
        assert told == {
            "default_model": ("", "default"),
            "max_output_tokens": (100, "database"),
            "rate_limits": ("", "default"),
            "message_log_text": (True, "default"),
            "message_log_days": (7, "environment"),
            "deleted_user_days": (30, "default"),
        }
        assert found["max_output_tokens"]["default"] == 4096
        assert found["max_output_tokens"]["variable"] == "MAX_OUTPUT_TOKENS"
        assert all(one["description"] for one in found.values())

    async def test_is_what_a_change_answers(self, server: Server) -> None:
        assert await changed(server, message_log_days=7) == await listed(server)


class TestChange:
    async def test_is_undone_by_null(self, server: Server) -> None:
        before = await listed(server)
        await changed(server, max_output_tokens=100, default_model=MODEL)

        after = await changed(server, max_output_tokens=None, default_model="")

        assert after == before

    async def test_holds_after_a_restart(self, serve: Any) -> None:
        async with serve(**WITHOUT) as server:
            await changed(server, max_output_tokens=100)
        async with serve(**WITHOUT) as server:
            assert server.runtime.settings.models.max_output_tokens == 100

    async def test_of_what_the_environment_sets_is_refused(self, serve: Any) -> None:
        async with serve(**WITHOUT, MESSAGE_LOG_DAYS="7") as server:
            answer = await change(server, message_log_days=30, max_output_tokens=100)

            assert (answer.status, answer.json["code"]) == (409, "set_by_environment")
            assert "MESSAGE_LOG_DAYS is set by environment" in answer.json["detail"]
            assert server.runtime.settings.models.max_output_tokens == 4096

    async def test_gives_way_to_the_environment(self, serve: Any) -> None:
        async with serve(**WITHOUT) as server:
            await changed(server, max_output_tokens=100)
        async with serve(**WITHOUT, MAX_OUTPUT_TOKENS="200") as server:
            found = (await listed(server))["max_output_tokens"]
            assert server.runtime.settings.models.max_output_tokens == 200
        assert (found["value"], found["source"]) == (200, "environment")

    @pytest.mark.parametrize(
        ("values", "path"),
        [
            ({"max_output_tokens": 0}, "max_output_tokens"),
            ({"max_output_tokens": 10**30}, "max_output_tokens"),
            ({"message_log_days": -1}, "message_log_days"),
            ({"message_log_days": 1e300}, "message_log_days"),
            ({"message_log_text": "perhaps"}, "message_log_text"),
            ({"deleted_user_days": 0}, "deleted_user_days"),
            ({"rate_limits": "auth.login=often"}, "rate_limits"),
            ({"rate_limits": "nothing=1/minute"}, "rate_limits"),
            ({"secret_key": "x" * 40}, "secret_key"),
        ],
    )
    async def test_to_what_a_start_would_refuse_is_refused(
        self, server: Server, values: dict[str, Any], path: str
    ) -> None:
        before = await listed(server)

        answer = await change(server, **{"default_model": MODEL, **values})

        assert answer.status == 422
        assert [error["path"] for error in answer.json["errors"]] == [path]
        assert await listed(server) == before

    async def test_to_a_model_that_there_is_not_is_refused(
        self, server: Server
    ) -> None:
        answer = await change(server, default_model="openai/none")

        assert (answer.status, answer.json["code"]) == (400, "unknown_model")

    async def test_is_audited_with_what_was_before(
        self, server: Server, database: Database
    ) -> None:
        """TRUST D2."""
        await changed(server, max_output_tokens=100)
        await changed(server, max_output_tokens=None, message_log_days=7)

        async with database.unit_of_work(read_only=True) as session:
            events = await session.scalars(
                select(AuditEvent)
                .where(AuditEvent.action == "setting.change")
                .order_by(AuditEvent.seq)
            )
            told = [(e.actor_kind, e.details) for e in events]
        ip = {"ip": "127.0.0.1"}
        assert told == [
            (
                "admin",
                ip
                | {
                    "before": {"max_output_tokens": 4096},
                    "after": {"max_output_tokens": 100},
                },
            ),
            (
                "admin",
                ip
                | {
                    "before": {"max_output_tokens": 100, "message_log_days": 90},
                    "after": {"max_output_tokens": 4096, "message_log_days": 7},
                },
            ),
        ]

    async def test_that_an_older_version_took_stops_no_start(
        self, serve: Any, database: Database
    ) -> None:
        async with serve(**WITHOUT) as server:
            await changed(server, max_output_tokens=100, message_log_days=7)
        async with database.unit_of_work() as session:
            await session.execute(
                update(Setting)
                .where(Setting.variable == "MAX_OUTPUT_TOKENS")
                .values(value="-1")
            )
        async with serve(**WITHOUT) as server:
            assert server.runtime.settings.models.max_output_tokens == 4096
            assert server.runtime.settings.message_logs.days == 7


class TestEffect:
    async def test_new_chats_begin_with_the_default_model(self, server: Server) -> None:
        client = await server.client()
        await changed(server, default_model="guide/manual")
        with_guide = await client.post("/chats", json={})
        await changed(server, default_model=MODEL)
        with_model = await client.post("/chats", json={})

        assert with_guide.json["model"] == "guide/manual"
        assert with_model.json["model"] == MODEL

    async def test_replies_are_as_long_as_they_may_be(
        self, server: Server, fake_openai: FakeOpenAI
    ) -> None:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        await changed(server, max_output_tokens=77)

        await client.reply(chat, "Say 5 words")

        assert fake_openai.calls[-1].body["max_tokens"] == 77

    async def test_requests_are_limited(self, server: Server) -> None:
        client = await server.client()
        admin = await server.admin("settings")
        await changed(server, rate_limits="chats.send=1/hour")
        chat = await client.chat(model=MODEL, title="Named")
        path, body = f"/chats/{chat}/messages", {"content": "Hi", "stream": False}

        first, second = [await client.post(path, json=body) for _ in range(2)]
        await admin.patch("/admin/settings", json={"rate_limits": None})
        third = await client.post(path, json=body)

        assert [first.status, second.status, third.status] == [201, 429, 201]
        assert first.headers["RateLimit-Limit"] == "1"
        assert "RateLimit-Limit" not in third.headers

    async def test_text_of_calls_is_kept_or_not(
        self, server: Server, database: Database
    ) -> None:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        await client.reply(chat, "Say 5 words")
        await changed(server, message_log_text=False)
        await client.reply(chat, "Say 5 words")
        await server.runtime.message_logs.close()

        async with database.unit_of_work(read_only=True) as session:
            texts = await session.scalars(
                select(MessageLog.messages).order_by(MessageLog.id)
            )
            assert [text is None for text in texts] == [False, True]

    async def test_logs_are_deleted_by_their_age(
        self, server: Server, database: Database
    ) -> None:
        client = await server.client()
        user = UUID((await client.get("/auth/me")).json["id"])
        old, new = first_id(utcnow() - timedelta(days=10)), uuid7()
        async with database.unit_of_work() as session:
            session.add_all(log_of(user, log_id) for log_id in (old, new))

        await purge(server.runtime)
        assert await ids(database) == [old, new]
        await changed(server, message_log_days=7)
        await purge(server.runtime)

        assert await ids(database) == [new]

    async def test_deleted_accounts_are_kept_for_so_long(
        self, server: Server, database: Database
    ) -> None:
        client = await server.client()
        await changed(server, deleted_user_days=3)

        gone = await client.delete("/users/me", json={"password": "a long pass phrase"})

        assert gone.status == 204
        async with database.unit_of_work(read_only=True) as session:
            deleted = (await session.scalars(select(DeletedUser))).one()
        assert deleted.purge_at - deleted.deleted_at == timedelta(days=3)

    async def test_is_felt_in_every_process_at_once(
        self, serve: Any, redis_url: str
    ) -> None:
        variables = {**WITHOUT, "REDIS_URL": redis_url}
        async with serve(**variables) as one, serve(**variables) as other:
            client: Client = await other.client()

            async def limited() -> bool:
                answer = await client.get("/auth/me")
                return "RateLimit-Limit" in answer.headers

            assert await limited() is False
            await changed(one, rate_limits="default=1000/minute")
            async with asyncio.timeout(2):
                await becomes(limited, expected=True)
            await changed(one, rate_limits=None)
            async with asyncio.timeout(2):
                await becomes(limited, expected=False)


def log_of(user: UUID, log_id: UUID) -> MessageLog:
    return MessageLog(
        id=log_id,
        user_id=user,
        username="-",
        kind="chat",
        model=MODEL,
        messages=None,
        input_tokens=1,
        output_tokens=1,
        credits=0,
        latency_ms=1,
        status="complete",
    )


async def ids(database: Database) -> list[UUID]:
    async with database.unit_of_work(read_only=True) as session:
        found = await session.scalars(select(MessageLog.id).order_by(MessageLog.id))
        return list(found)
