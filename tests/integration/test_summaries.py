"""A chat's oldest messages, summed up by a job once they no longer fit."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import func, select

from app.core.database import utcnow
from app.core.queue import get_task
from app.models import Job, Message, MessageSummary, UsageDay
from app.services import job as jobs
from tests.client import Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI
from tests.integration.branch import store_branch
from tests.integration.rows import settled

MODEL = "openai/fake-small"
CATALOGUE = f"""
["{MODEL}"]
context_window = 3000
max_output_tokens = 1000
"""
RECORD = "They counted sheep."
LONG = "word " * 300


@pytest.fixture
async def server(serve: Any, fake_openai: FakeOpenAI, tmp_path: Any) -> Any:
    """Its model takes 2,000 tokens, and sums up in the same words, always."""
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(CATALOGUE)
    fake_openai.plan.reply = lambda dialogue: (
        RECORD if "Write one record" in str(dialogue) else "Yes."
    )
    async with serve(
        OPENAI_BASE_URL=fake_openai.base_url, MODEL_CATALOGUE=str(catalogue)
    ) as server:
        yield server


async def long_chat(server: Server, client: Client, turns: int = 5) -> str:
    chat = await client.chat(model=MODEL, title="Named", system_prompt="Be brief.")
    said = [f"{role} {n}: {LONG}" for n in range(turns) for role in ("Q", "A")]
    await store_branch(server, chat, [[{"type": "text", "text": t}] for t in said])
    return chat


async def summary(server: Server, chat: str) -> Message:
    """The last message that a summary ends with, once the job has run."""
    done = select(Job).where(Job.name == "chat.summary", Job.state == "succeeded")
    found = (
        select(Message)
        .join(MessageSummary)
        .where(Message.chat_id == UUID(chat), MessageSummary.text == RECORD)
        .order_by(Message.id.desc())
        .limit(1)
    )
    async with asyncio.timeout(10):
        while True:
            async with server.runtime.database.unit_of_work(read_only=True) as session:
                if await session.scalar(done):
                    message: Message = (await session.scalars(found)).one()
                    return message
            await asyncio.sleep(0.01)


def summing_up(fake: FakeOpenAI) -> list[str]:
    """What the model was told to sum up, call by call."""
    asked = [str(call.body["messages"]) for call in fake.calls]
    return [one for one in asked if "Write one record" in one]


async def calls_paid(server: Server) -> int:
    await server.runtime.credits.flush()
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        booked = select(func.coalesce(func.sum(UsageDay.requests), 0))
        found = await session.scalar(booked.where(UsageDay.kind == "summary"))
    return int(found or 0)


async def test_what_no_longer_fits_is_left_out_and_then_summed_up(
    server: Server, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2: the summary is billed, as what it is, once."""
    client = await server.client()
    chat = await long_chat(server, client)
    await client.ask(chat, "And now?")
    [asked] = [c.body["messages"] for c in fake_openai.calls][:1]
    assert asked[0] == {"role": "system", "content": "Be brief."}
    assert "Q 0" not in str(asked)
    assert "A 4" in str(asked)

    message = await summary(server, chat)
    assert message.role == "assistant"
    told = summing_up(fake_openai)
    assert "User: Q 0" in told[0]
    assert all(f"<record>\\n{RECORD}" in one for one in told[1:])
    assert "Be brief." not in "".join(told)

    await client.ask(chat, "And then?")
    sent = fake_openai.calls[-1].body["messages"]
    first_left = int(message.text[2]) + 1
    assert [m["role"] for m in sent[:2]] == ["system", "user"]
    assert RECORD in str(sent[1])
    assert f"Q {first_left}" in str(sent[1])
    assert f"A {first_left - 1}" not in str(sent)
    assert "Yes." in str(sent)
    assert await calls_paid(server) == len(told)


async def test_turns_that_end_at_once_pay_for_one_summary(
    server: Server, fake_openai: FakeOpenAI
) -> None:
    """TRUST M2: while one is being written, in whatever process, none is asked for."""
    client = await server.client()
    chat = await long_chat(server, client)
    elsewhere = Job(
        name="chat.summary",
        state="running",
        attempts=1,
        unique_key=f"chat.summary:{chat}",
        lease_owner="another process",
        lease_expires_at=utcnow() + timedelta(hours=1),
    )
    async with server.runtime.database.unit_of_work() as session:
        session.add(elsewhere)

    await client.ask(chat, "And now?")
    [leaf, *_] = await client.messages(chat)
    again = f"/messages/{leaf['id']}/regenerate"

    async def at_once() -> None:
        form = {"stream": False}
        await asyncio.gather(*(client.post(again, json=form) for _ in range(3)))

    await at_once()
    asked_meanwhile = summing_up(fake_openai)
    async with server.runtime.database.unit_of_work() as session:
        known = await session.scalar(
            select(func.count()).where(Job.name == "chat.summary")
        )
        await jobs.succeed(session, elsewhere)
    # Nothing came of that one: the next turns ask again, and one of them is heard.
    await at_once()
    await settled(server)

    assert (asked_meanwhile, known) == ([], 1)
    firsts = [told for told in summing_up(fake_openai) if "User: Q 0" in told]
    assert len(firsts) == 1


async def test_a_later_summary_goes_on_from_the_one_before(
    server: Server, fake_openai: FakeOpenAI
) -> None:
    client = await server.client()
    chat = await long_chat(server, client)
    await client.ask(chat, "And now?")
    before = await summary(server, chat)
    more = [f"{role} {n}: {LONG}" for n in range(5, 9) for role in ("Q", "A")]
    await store_branch(server, chat, [[{"type": "text", "text": t}] for t in more])
    fake_openai.calls.clear()
    [leaf, *_] = await client.messages(chat)

    await get_task("chat.summary").function(
        server.runtime, message_id=leaf["id"], room=2000
    )

    asked = str(fake_openai.calls[0].body["messages"])
    assert f"<record>\\n{RECORD}" in asked
    assert before.text not in asked
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        found = select(func.count()).select_from(MessageSummary)
        assert (await session.scalar(found) or 0) > 1


async def test_it_is_asked_for_once_though_the_job_runs_twice(
    server: Server, fake_openai: FakeOpenAI
) -> None:
    client = await server.client()
    chat = await long_chat(server, client)
    await client.ask(chat, "And now?")
    await summary(server, chat)
    [leaf, *_] = await client.messages(chat)
    fake_openai.calls.clear()

    await get_task("chat.summary").function(
        server.runtime, message_id=leaf["id"], room=2000
    )

    assert fake_openai.calls == []


async def test_other_branches_that_share_the_beginning_have_it_too(
    server: Server, fake_openai: FakeOpenAI
) -> None:
    client = await server.client()
    chat = await long_chat(server, client)
    await client.ask(chat, "And now?")
    await summary(server, chat)
    [leaf, question, *_] = await client.messages(chat)
    forked = (await client.post(f"/chats/{chat}/fork", json={})).json["id"]

    await client.patch(
        f"/messages/{question['id']}", json={"content": "Else?", "stream": False}
    )
    assert RECORD in str(fake_openai.calls[-1].body["messages"])
    await client.post(f"/messages/{leaf['id']}/regenerate", json={"stream": False})
    assert RECORD in str(fake_openai.calls[-1].body["messages"])
    await client.ask(forked, "Here?")
    assert RECORD in str(fake_openai.calls[-1].body["messages"])


async def test_the_guide_sums_nothing_up(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(model="guide/manual", title="Named")
    await client.ask(chat, "How do I make a backup?")
    [leaf, *_] = await client.messages(chat)

    await get_task("chat.summary").function(
        server.runtime, message_id=leaf["id"], room=0
    )

    assert (await client.messages(chat))[0]["text"] == leaf["text"]


async def test_instructions_that_do_not_fit_are_a_clear_error(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(model=MODEL, title="Named", system_prompt="word " * 2000)

    answer = await client.post(f"/chats/{chat}/messages", json={"content": "Hello"})

    assert (answer.status, answer.json["code"]) == (422, "instructions_too_long")
    assert "system prompt" in answer.json["detail"]
    assert await client.messages(chat) == []


async def test_a_chat_that_is_gone_needs_no_summary(server: Server) -> None:
    await get_task("chat.summary").function(
        server.runtime, message_id=str(UUID(int=0)), room=10
    )
