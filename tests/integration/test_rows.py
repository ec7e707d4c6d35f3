"""Lists answer rows as they are; the same as JSON as what models would make of them."""

from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from uuid_utils.compat import uuid7

from app.models import Chat, Message
from tests.conftest import Server

WHOLE_SECOND = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TOOL = {"type": "tool_use", "id": "a", "name": "add"}
USAGE = {"input_tokens": 1, "output_tokens": 2}
KINDS: list[dict[str, Any]] = [
    {"role": "user", "content": [{"type": "text", "text": 'a "b" \n é 🙂'}]},
    {"role": "assistant", "content": [], "status": "stopped", "usage": USAGE},
    {
        "role": "assistant",
        "content": [
            {"type": "text", "text": "one "},
            TOOL | {"input_json": '{"a": [1.5, null]}'},
            TOOL | {"input_json": '{"a": '},
            TOOL | {"input_json": "[1]"},
            {"type": "text", "text": "two"},
        ],
        "usage": USAGE | {"cache_read_tokens": 3, "estimated": True},
        "citations": [{"source": "s", "quote": "q", "start": 0, "end": 1}],
        "credits": 2**40,
    },
    {"role": "assistant", "status": "error", "error": {"code": "c", "status": 502}},
    {"role": "assistant", "rating": -1, "rating_comment": "no", "stop_reason": "x"},
    {"role": "assistant", "model": "guide/manual", "created_at": WHOLE_SECOND},
]


@pytest.mark.parametrize("first", [True, False])
async def test_a_page_of_messages_holds_what_each_message_is(
    server: Server, *, first: bool
) -> None:
    """With two versions of one place, at the chat's beginning and below."""
    client = await server.client()
    chat = UUID(await client.chat())
    rows: list[Message] = []
    for kind in KINDS:
        above = rows[-1].id if rows else None
        rows.append(Message(id=uuid7(), chat_id=chat, parent_id=above, **kind))
    twin = 0 if first else 3
    rows.append(
        Message(id=uuid7(), chat_id=chat, parent_id=rows[twin].parent_id, **KINDS[twin])
    )
    async with server.runtime.database.unit_of_work() as session:
        for row in rows:
            session.add(row)
            await session.flush()
        (await session.get_one(Chat, chat)).leaf_id = rows[-2].id

    page = (await client.get(f"/chats/{chat}/messages")).json

    ids = [str(row.id) for row in rows]
    assert [item["id"] for item in page["items"]] == ids[-2::-1]
    for item in page["items"]:
        assert item == (await client.get(f"/messages/{item['id']}")).json
    versions = {tuple(item["sibling_ids"]) for item in page["items"]}
    assert versions >= {(ids[twin], ids[-1]), (ids[1],)}


async def test_a_list_of_chats_holds_what_each_chat_is(server: Server) -> None:
    client = await server.client()
    for form in ({"title": 'a "b" é'}, {"system_prompt": "p\n"}, {}):
        await client.chat(**form)
    pinned = await client.chat(title="pinned")
    await client.patch(f"/chats/{pinned}", json={"pinned": True})
    await client.ask(pinned, "Hello")
    async with server.runtime.database.unit_of_work() as session:
        (await session.get_one(Chat, UUID(pinned))).updated_at = WHOLE_SECOND

    items = (await client.get("/chats")).json["items"]

    assert len(items) == 4
    assert items[0]["updated_at"] == "2026-01-02T03:04:05Z"
    for item in items:
        assert item == (await client.get(f"/chats/{item['id']}")).json
