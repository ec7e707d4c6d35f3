"""Chats as files, and as links that everybody may read."""

import base64
import json
from typing import Any
from urllib.parse import unquote
from uuid import UUID

from sqlalchemy import select

from app.core.database import Database
from app.models import Chat, ChatShare, Message
from app.services.chat import export
from tests.client import Client
from tests.conftest import Server
from tests.fakes.openai import FakeOpenAI
from tests.integration.branch import store_branch

MODEL = "openai/fake-small"


def file_of(kind: str, media_type: str, data: bytes) -> dict[str, Any]:
    encoded = base64.b64encode(data).decode()
    source = {"type": "base64", "media_type": media_type, "data": encoded}
    return {"type": kind, "source": source}


PNG = file_of("image", "image/png", b"\x89PNG\r\n\x1a\nrest")
PDF = file_of("document", "application/pdf", b"%PDF-1.7\nrest")
MEMO = {
    "type": "document",
    "source": {"type": "text", "media_type": "text/plain", "data": "A note."},
    "title": "Memo",
}


async def share(client: Client, chat: str) -> dict[str, Any]:
    answer = await client.post(f"/chats/{chat}/share")
    assert answer.status == 201, answer.body
    assert answer.headers["Cache-Control"] == "no-store"
    return dict(answer.json)


async def page_of(server: Server, token: str) -> Any:
    session = server.anonymous()._session
    async with session.get(f"{server.url}/shared/{token}") as response:
        return response.status, response.headers, await response.text()


async def test_a_link_shows_the_branch_as_it_stood_and_nothing_of_the_owner(
    serve: Any, database: Database
) -> None:
    async with serve(PUBLIC_URL="https://rooms.example/base/") as server:
        client = await server.client("ada")
        chat = await client.chat(title="Trip", system_prompt="Secret prompt")
        first = await client.reply(chat, "Hello <b>you</b>")
        made = await share(client, chat)
        await client.reply(chat, "A later secret")
        await client.patch(f"/chats/{chat}", json={"title": "Private"})

        anyone = server.anonymous()
        read = await anyone.get(f"/shared/{made['token']}")

        assert made["url"] == f"https://rooms.example/base/shared/{made['token']}"
        assert len(made["token"]) >= 43
        assert read.status == 200
        assert read.json["title"] == "Trip"
        assert read.json["next_cursor"] is None
        assert [m["text"] for m in read.json["items"]] == [
            "Hello <b>you</b>",
            first["text"],
        ]
        assert set(read.json["items"][0]) == {
            "role", "content", "text", "model", "citations", "created_at",
        }  # fmt: skip
        for secret in ("ada", "Secret prompt", "later", "Private", chat, first["id"]):
            assert secret not in read.body.decode().replace("Canada", "")
        async with database.unit_of_work(read_only=True) as session:
            stored = (await session.scalars(select(ChatShare))).one()
        assert made["token"].encode() not in stored.token_hash
        assert read.headers["X-Robots-Tag"] == "noindex, nofollow"


async def test_the_page_escapes_everything_and_runs_nothing(server: Server) -> None:
    client = await server.client()
    evil = "</pre><script>alert(1)</script>&amp; {braces}"
    chat = await client.chat(title=f"{evil} title")
    await client.ask(chat, evil)
    made = await share(client, chat)

    status, headers, html = await page_of(server, made["token"])

    assert status == 200
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "script-src" not in headers["Content-Security-Policy"]
    assert headers["X-Robots-Tag"] == "noindex, nofollow"
    assert '<meta name="robots" content="noindex, nofollow">' in html
    assert "<script" not in html
    assert html.count("&lt;/pre&gt;&lt;script&gt;alert(1)") >= 3
    assert "&amp;amp; {braces}" in html


async def test_a_link_shows_images_and_names_documents(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Trip")
    thought = {"type": "thinking", "thinking": "Secret thought"}
    named = {**PDF, "title": "<plan>.pdf"}
    answer = {"type": "text", "text": "A dot."}
    await store_branch(
        server, chat, [[PNG, named, MEMO], [thought, answer], [answer], []]
    )
    made = await share(client, chat)

    _, headers, html = await page_of(server, made["token"])
    read = await server.anonymous().get(f"/shared/{made['token']}")

    data = PNG["source"]["data"]
    assert f'<img alt="Image" src="data:image/png;base64,{data}">' in html
    assert "img-src 'self' data:" in headers["Content-Security-Policy"]
    assert "<p>Document: &lt;plan&gt;.pdf</p>\n<p>Document: Memo</p>" in html
    assert html.count("<article") == 3  # the last reply failed before its first word
    assert [message["content"] for message in read.json["items"]] == [
        [
            PNG,
            {"type": "document", "title": "<plan>.pdf"},
            {"type": "document", "title": "Memo"},
        ],
        [answer],
        [answer],
        [],
    ]
    for secret in ("A note.", "Secret thought", PDF["source"]["data"]):
        assert secret not in html + read.body.decode()


async def test_a_second_link_ends_the_first_and_delete_ends_both(
    server: Server,
) -> None:
    client = await server.client()
    chat = await client.chat(title="Trip")
    await client.ask(chat, "Hello")

    first, second = await share(client, chat), await share(client, chat)
    anyone = server.anonymous()
    assert (await anyone.get(f"/shared/{first['token']}")).status == 404
    assert (await anyone.get(f"/shared/{second['token']}")).status == 200
    for _ in range(2):
        assert (await client.delete(f"/chats/{chat}/share")).status == 204
    gone = await anyone.get(f"/shared/{second['token']}")
    assert gone.status == 404
    assert gone.json["code"] == "not_found"
    status, headers, html = await page_of(server, second["token"])
    assert status == 404
    assert headers["Content-Type"].startswith("text/html")
    assert "leads nowhere" in html


async def test_a_link_ends_with_its_messages_and_its_chat(server: Server) -> None:
    client = await server.client()
    chat, other = await client.chat(title="a"), await client.chat(title="b")
    reply = await client.reply(chat, "Hello")
    await client.ask(other, "Hello")
    made, others = await share(client, chat), await share(client, other)

    await client.delete(f"/messages/{reply['parent_id']}")
    await client.delete(f"/chats/{other}")

    for token in (made["token"], others["token"], "x", "%00", "a" * 3000):
        answer = await server.anonymous().get(f"/shared/{token}")
        assert answer.status == 404, token


async def test_what_is_continued_later_is_not_shown(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["cut"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        await client.ask(chat, "Say 20 words")
        broken = (await client.messages(chat))[0]
        made = await share(client, chat)
        whole = await client.post(
            f"/messages/{broken['id']}/continue", json={"stream": False}
        )
        read = await server.anonymous().get(f"/shared/{made['token']}")

    assert whole.json["text"] != broken["text"]
    assert read.json["items"][-1]["text"] == broken["text"]


async def test_an_empty_chat_and_a_reply_being_written_are_not_shared(
    serve: Any, fake_openai: FakeOpenAI
) -> None:
    fake_openai.plan.faults = ["stall"]
    async with serve(OPENAI_BASE_URL=fake_openai.base_url) as server:
        client = await server.client()
        chat = await client.chat(model=MODEL, title="Named")
        empty = await client.post(f"/chats/{chat}/share")
        async with client.asking(chat, "Say 50 words") as stream:
            await stream.until("delta")
            running = await client.post(f"/chats/{chat}/share")

    assert (empty.status, empty.json["code"]) == (409, "nothing_to_share")
    assert (running.status, running.json["code"]) == (409, "turn_in_progress")


async def test_an_export_as_json_holds_the_whole_tree(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title='Ünter/wegs: \r\n"trip"')
    first = await client.reply(chat, "Hello")
    await client.post(f"/messages/{first['id']}/regenerate", json={"stream": False})
    for n in range(12):
        await client.ask(chat, f"Question {n}")

    answer = await client.get(f"/chats/{chat}/export")

    disposition = answer.headers["Content-Disposition"]
    assert answer.status == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert disposition.startswith("attachment; filename=")
    assert unquote(disposition).endswith("Ünter wegs trip.json")
    exported = answer.json
    assert exported["chat"] == (await client.get(f"/chats/{chat}")).json
    assert len(exported["messages"]) == 27
    ids = [m["id"] for m in exported["messages"]]
    assert ids == sorted(ids)
    for message in exported["messages"][:3]:
        assert (await client.get(f"/messages/{message['id']}")).json == message


async def test_an_export_as_markdown_holds_the_branch_that_is_shown(
    server: Server,
) -> None:
    client = await server.client()
    chat = await client.chat(title="Trip")
    empty = await client.get(f"/chats/{chat}/export?format=md")
    first = await client.reply(chat, "Hello")
    await client.patch(
        f"/messages/{first['parent_id']}", json={"content": "Hi", "stream": False}
    )

    answer = await client.get(f"/chats/{chat}/export?format=md")

    assert answer.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert answer.headers["Content-Disposition"].endswith("Trip.md")
    text = answer.body.decode()
    assert text.startswith("# Trip\n\n## You\n\nHi\n\n## Assistant (guide/manual)\n")
    assert "Hello" not in text
    assert empty.body == b"# Trip\n"
    assert (await client.get(f"/chats/{chat}/export?format=pdf")).status == 422


async def test_an_export_as_json_loses_nothing_of_any_block(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Trip")
    sent = [{"type": "text", "text": "What is this?"}, PNG, PDF, MEMO]
    call = {"type": "tool_use", "id": "1", "name": "clock"}
    thought = {"type": "thinking", "thinking": "Hm", "signature": "c2ln"}
    hidden = {"type": "redacted_thinking", "data": "x"}
    stored = [thought, hidden, call | {"input_json": '{"a": [1]}'},
              call | {"input_json": '{"a": '}]  # fmt: skip
    await store_branch(server, chat, [sent, stored])

    messages = (await client.get(f"/chats/{chat}/export")).json["messages"]

    assert messages[0]["content"] == sent
    assert messages[1]["content"] == [
        thought,
        hidden,
        call | {"input": {"a": [1]}},
        call | {"input": {}, "input_json": '{"a": '},
    ]


async def test_an_export_as_markdown_shows_images_and_names_documents(
    server: Server,
) -> None:
    client = await server.client()
    chat = await client.chat(title="Trip")
    sent = [{"type": "text", "text": "What is this?"}, PNG, PDF, MEMO]
    await store_branch(server, chat, [sent, [{"type": "text", "text": "A dot."}]])

    text = (await client.get(f"/chats/{chat}/export?format=md")).body.decode()

    assert text.startswith(
        "# Trip\n\n## You\n\nWhat is this?\n\n"
        f"![Image](data:image/png;base64,{PNG['source']['data']})\n\n"
        "**Document:** untitled (PDF)\n\n**Document:** Memo (text)\n\n"
        "## Assistant\n\nA dot.\n"
    )


async def test_what_is_deleted_while_it_is_exported_is_left_out(server: Server) -> None:
    client = await server.client()
    chat = await client.chat()
    large = [{"type": "text", "text": "w" * 700_000}]
    await store_branch(server, chat, [large] * 3)
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        row = await session.get_one(Chat, UUID(chat))
    first, second, _ = reversed(await client.messages(chat))

    pieces = export.content(server.runtime.database, row, "json")
    got = [await anext(pieces), await anext(pieces)]  # the head, and the first message
    await client.delete(f"/messages/{second['id']}")
    got += [piece async for piece in pieces]

    messages = json.loads(b"".join(got))["messages"]
    assert [message["id"] for message in messages] == [first["id"]]


async def test_large_messages_are_read_one_by_one_and_small_ones_together(
    server: Server,
) -> None:
    client = await server.client()
    chat = await client.chat()
    small = [[{"type": "text", "text": "w" * 40_000}]] * 30
    large = [[{"type": "text", "text": "w" * 700_000}]] * 3
    await store_branch(server, chat, [*small, *large, *small[:2]])
    leaf = (await client.get(f"/chats/{chat}")).json["leaf_id"]

    branch = export.branch(server.runtime.database, UUID(chat), UUID(leaf))
    read = [[len(message.text) for message in batch] async for batch in branch]

    assert [len(batch) for batch in read] == [20, 10, 1, 1, 3]
    assert sum(map(sum, read)) == 32 * 40_000 + 3 * 700_000


async def test_no_chat_of_another_is_shared_forked_or_exported(
    server: Server, database: Database
) -> None:
    ada, bob = await server.client("ada"), await server.client("bob")
    chat, own = await ada.chat(title="Secret"), await bob.chat(title="Own")
    reply = await ada.reply(chat, "Hello")
    made = await share(ada, chat)
    message = reply["id"]

    for method, path, body in [
        ("POST", f"/chats/{chat}/fork", {}),
        ("POST", f"/chats/{own}/fork", {"message_id": message}),
        ("GET", f"/chats/{chat}/export", None),
        ("POST", f"/chats/{chat}/share", None),
        ("DELETE", f"/chats/{chat}/share", None),
        ("PATCH", f"/chats/{own}", {"leaf_id": message}),
        ("PATCH", f"/messages/{reply['parent_id']}", {"content": "x"}),
        ("POST", f"/messages/{message}/regenerate", {}),
        ("PUT", f"/messages/{message}/rating", {"value": 1}),
        ("DELETE", f"/messages/{message}", None),
    ]:
        answer = await bob.request(method, path, json=body)
        assert answer.status == 404, (method, path, answer.body)
        assert answer.json["code"] == "not_found"
    assert (await bob.get("/chats", params={"q": "secret"})).json["items"] == []
    async with database.unit_of_work(read_only=True) as session:
        assert len((await session.scalars(select(Message))).all()) == 2
    assert (await server.anonymous().get(f"/shared/{made['token']}")).status == 200
    for path in (f"/chats/{chat}/export", f"/chats/{chat}"):
        assert (await server.anonymous().get(path)).status == 401
