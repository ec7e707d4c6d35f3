"""Every call of a model is paid for, once, by the provider's figures."""

import asyncio
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.core.database import Database
from app.models import CreditAccount, CreditEntry, MessageLog, UsageDay
from tests.client import Client
from tests.conftest import Server
from tests.fakes.faults import Fault
from tests.fakes.openai import FakeOpenAI

MODEL = "openai/fake-small"
PRICED = """
["openai/fake-small"]
context_window = 100000
max_output_tokens = 4096
capabilities = ["text"]
prices = { input = 10, output = 100 }
"""
OF_50_WORDS = 25 * 10 + 50 * 100
"""Credits: the fake tells 25 tokens of input, and one of output for each word."""


@pytest.fixture
async def priced(serve: Any, fake_openai: FakeOpenAI, tmp_path: Path) -> Any:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(PRICED)
    variables = {
        "OPENAI_BASE_URL": fake_openai.base_url,
        "MODEL_CATALOGUE": str(catalogue),
    }
    async with serve(**variables) as server:
        yield server


async def spent(server: Server, client: Client) -> dict[str, int]:
    """Credits by kind of call, as the figures of the day tell."""
    user = UUID((await client.get("/users/me")).json["id"])
    await server.runtime.credits.flush()
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        found = await session.execute(
            select(UsageDay.kind, func.sum(UsageDay.credits))
            .where(UsageDay.user_id == user)
            .group_by(UsageDay.kind)
        )
        return {kind: int(credits_) for kind, credits_ in found}


async def balance_is_the_ledgers(database: Database) -> None:
    async with database.unit_of_work(read_only=True) as session:
        for account in await session.scalars(select(CreditAccount)):
            total = await session.scalar(
                select(func.sum(CreditEntry.amount)).where(
                    CreditEntry.user_id == account.id
                )
            )
            assert account.balance == total
            assert account.balance >= 0


async def test_a_turn_is_booked_by_the_providers_figures(priced: Server) -> None:
    """TRUST M1, M2."""
    client = await priced.client()
    chat = await client.chat(model=MODEL, title="Named")

    reply = await client.reply(chat, "Say 50 words")

    assert reply["credits"] == OF_50_WORDS
    assert await spent(priced, client) == {"chat": OF_50_WORDS}
    await balance_is_the_ledgers(priced.runtime.database)


async def test_a_title_is_paid_for_too(priced: Server, fake_openai: FakeOpenAI) -> None:
    """TRUST M2."""
    client = await priced.client()
    chat = await client.chat(model=MODEL)

    await client.reply(chat, "Say 50 words")
    async with asyncio.timeout(10):
        while True:
            if (await client.get(f"/chats/{chat}")).json["title"] is not None:
                break
            await asyncio.sleep(0.01)

    booked = await spent(priced, client)
    assert booked["chat"] == OF_50_WORDS
    assert booked["title"] > 0
    assert len(fake_openai.calls) == 2


async def test_a_stopped_reply_is_paid_for_as_far_as_it_came(
    priced: Server, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2."""
    client = await priced.client()
    chat = await client.chat(model=MODEL, title="Named")
    fake_openai.plan.chunk_delay = 0.01
    async with client.asking(chat, "Say 500 words") as stream:
        begun = await stream.words(3)
        await client.post(f"/messages/{begun[0].data['message_id']}/stop")
        await stream.all()

    reply = (await client.messages(chat))[0]

    assert reply["status"] == "stopped"
    assert reply["usage"]["estimated"]
    assert 0 < reply["credits"] < 25 * 10 + 500 * 100
    assert await spent(priced, client) == {"chat": reply["credits"]}


async def test_a_reply_that_is_stopped_before_a_provider_takes_the_call_costs_nothing(
    priced: Server, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2: it has refused, and is to be asked again."""
    client = await priced.client()
    chat = await client.chat(model=MODEL, title="Named")
    fake_openai.plan.update({"faults": ["unavailable"] * 9, "retry_after": "15"})
    async with client.asking(chat, "Say 50 words") as stream:
        begun = (await stream.until("message_start"))[-1]
        await asyncio.wait_for(fake_openai.called.wait(), 20)
        await fake_openai.calls[0].ended.wait()
        await client.post(f"/messages/{begun.data['message_id']}/stop")
        await stream.all()

    reply = (await client.messages(chat))[0]

    assert (reply["status"], reply["credits"]) == ("stopped", 0)
    assert (reply["usage"]["input_tokens"], reply["usage"]["output_tokens"]) == (0, 0)
    assert await spent(priced, client) == {}


@pytest.mark.parametrize("fault", ["unavailable", "throttle_first"])
async def test_a_call_that_the_provider_refuses_costs_nothing(
    priced: Server, fake_openai: FakeOpenAI, fault: Fault
) -> None:
    """TRUST M2."""
    client = await priced.client()
    chat = await client.chat(model=MODEL, title="Named")
    fake_openai.plan.faults = [fault] * 10

    events = await client.ask(chat, "Say 50 words")

    assert events[-1].name == "error"
    assert (await client.messages(chat))[0]["credits"] == 0
    assert (await spent(priced, client)).get("chat", 0) == 0


async def test_who_cannot_pay_is_told_so_and_nothing_is_stored(priced: Server) -> None:
    """TRUST M1."""
    client = await priced.client()
    admin = await priced.admin("plans", "credits")
    user = (await client.get("/users/me")).json["id"]
    chat = await client.chat(model=MODEL, title="Named")
    limits = {"monthly_credits": 1000}
    set_ = await admin.request("PUT", f"/admin/users/{user}/limits", json=limits)
    assert set_.status == 204, set_.body

    refused = await client.post(f"/chats/{chat}/messages", json={"content": "Hello"})

    assert (refused.status, refused.json["code"]) == (402, "insufficient_credits")
    assert await client.messages(chat) == []


async def test_a_turn_is_logged_with_what_it_cost(priced: Server) -> None:
    client = await priced.client()
    chat = await client.chat(model=MODEL, title="Named")

    await client.reply(chat, "Say 50 words")

    async with asyncio.timeout(10):
        while True:
            async with priced.runtime.database.unit_of_work(read_only=True) as session:
                log = await session.scalar(select(MessageLog))
            if log is not None:
                break
            await asyncio.sleep(0.01)
    assert (log.kind, log.model, log.status) == ("chat", MODEL, "complete")
    assert (log.input_tokens, log.output_tokens, log.credits) == (25, 50, OF_50_WORDS)
