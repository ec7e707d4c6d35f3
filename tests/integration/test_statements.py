"""How much SQL the busiest requests cost: counted, so that it cannot creep up."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import event

from tests.client import Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI
from tests.integration.uploading import TEXT, ready

MODEL = "openai/fake-small"
_BACKGROUND = (
    "Worker.",
    "Checkpoints.",
    "Credits.",
    "IpRules.",
    "MessageLogs.",
    "run_coroutine_job",
)
_CONTROL = ("BEGIN", "COMMIT", "ROLLBACK", "PRAGMA")


@contextmanager
def counted(server: Server) -> Iterator[list[str]]:
    """Collect the statements of requests and turns; not the workers' own."""
    statements: list[str] = []

    def note_of_session(_connection: Any, _cursor: Any, sql: str, *_rest: Any) -> None:
        note(sql)

    def note(statement: str) -> None:
        task = asyncio.current_task()
        coroutine = task.get_coro() if task else None
        name = getattr(coroutine, "__qualname__", "")
        in_background = name.startswith(_BACKGROUND)
        if not in_background and not statement.startswith(_CONTROL):
            statements.append(statement)

    database = server.runtime.database
    engine = database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note_of_session)
    database.watchers.append(note)
    try:
        yield statements
    finally:
        database.watchers.remove(note)
        event.remove(engine, "before_cursor_execute", note_of_session)


async def test_a_turn_costs_at_most_eight_statements(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL)
        await client.ask(chat, "Say 3 words")

        with counted(server) as statements:
            await client.ask(chat, "Say 10 words")

    assert 0 < len(statements) <= 8, statements


async def test_the_first_turn_too_though_it_asks_for_a_title(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        # The first call of a process leases credits for those that follow.
        await client.ask(await client.chat(model=MODEL, title="Named"), "Say 1 words")
        chat = await client.chat(model=MODEL)
        with counted(server) as statements:
            await client.ask(chat, "Say 10 words")

    assert any("INSERT INTO jobs" in s for s in statements)
    assert len(statements) <= 8, statements


async def test_a_turn_with_a_project_files_and_citations_costs_a_few_more(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    """As many, however many documents and files there are."""
    fake_openai.plan.text = 'It says "Trains to Bern leave at nine" [a.txt].'
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        one = await _turn_with_files(server, client, mode="full", files=["a"])
        many = await _turn_with_files(server, client, mode="full", files=list("bcd"))
        searched = await _turn_with_files(server, client, mode="retrieval", files=["e"])

    assert one == many <= 13
    assert searched <= 17


async def _turn_with_files(
    server: Server, client: Client, *, mode: str, files: list[str]
) -> int:
    """The statements of a turn that cites what is attached."""
    form = {"name": "Trains", "context_mode": mode}
    project = (await client.post("/projects", json=form)).json["id"]
    for name in files:
        pasted = {"title": name, "text": f"The ship {name} sails at ten."}
        await client.post(f"/projects/{project}/documents", json=pasted)
    uploaded = [
        await ready(server, client, TEXT + name.encode(), "a.txt") for name in files
    ]
    chat = await client.chat(model=MODEL, title="Named", project_id=project)
    # The first call of a process leases credits for those that follow.
    await client.ask(chat, "Hello")
    with counted(server) as statements:
        reply = await client.reply(
            chat, "Which ship sails?", file_ids=[file["id"] for file in uploaded]
        )
    assert len(reply["citations"]) == 1
    assert any("project_documents" in statement for statement in statements)
    return len(statements)


async def test_an_authenticated_read_costs_one_statement(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Named")
    await client.ask(chat, "Hello")
    message = (await client.messages(chat))[0]["id"]
    await client.get("/auth/me")

    await client.post(f"/messages/{message}/regenerate", json={"stream": False})
    await client.patch(f"/chats/{chat}", json={"pinned": True})
    await client.get("/chats?q=hello")  # what was just said is indexed before a search
    for path in (
        "/chats",
        "/chats?q=hello+named",
        f"/chats/{chat}",
        f"/chats/{chat}/messages",
        f"/messages/{message}",
        "/auth/me",
        "/auth/sessions",
    ):
        with counted(server) as statements:
            assert (await client.get(path)).status == 200
        assert len(statements) == 1, (path, statements)


async def test_an_idempotency_key_costs_three_statements_and_its_answer_one(
    server: Server,
) -> None:
    client = await server.client()
    await client.chat()
    with counted(server) as without:
        await client.post("/chats", json={})
    headers = {"Idempotency-Key": "one"}
    with counted(server) as first:
        await client.post("/chats", json={}, headers=headers)
    with counted(server) as again:
        await client.post("/chats", json={}, headers=headers)

    assert len(first) == len(without) + 3, first
    assert len(again) == 1, again
