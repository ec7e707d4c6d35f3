"""Any run of tree operations leaves a tree, as a model of it in memory says."""

import asyncio
import random
from typing import Any

import pytest

from tests.client import Client
from tests.conftest import Server

STEPS = 40


class Model:
    """What the chat must be: parents by id, in the order of their making."""

    def __init__(self) -> None:
        self.parents: dict[str, str | None] = {}
        self.roles: dict[str, str] = {}
        self.leaf: str | None = None

    def add(self, message: dict[str, Any], above: str | None) -> None:
        question = message["parent_id"]
        if question not in self.parents:
            self.parents[question] = above
            self.roles[question] = "user"
        self.parents[message["id"]] = question
        self.roles[message["id"]] = "assistant"
        self.leaf = message["id"]

    def below(self, top: str) -> list[str]:
        found = [top]
        for one in found:
            found += [m for m, parent in self.parents.items() if parent == one]
        return found

    def branch(self) -> list[str]:
        line, one = [], self.leaf
        while one is not None:
            line.append(one)
            one = self.parents[one]
        return line

    def siblings(self, one: str) -> list[str]:
        return [m for m, p in self.parents.items() if p == self.parents[one]]

    def remove(self, top: str) -> None:
        gone = self.below(top)
        for one in gone:
            del self.parents[one], self.roles[one]
        if self.leaf in gone:
            self.leaf = list(self.parents)[-1] if self.parents else None

    def show(self, one: str) -> None:
        under = set(self.below(one))
        ends = [m for m in under if m not in self.parents.values()]
        self.leaf = max(ends, key=list(self.parents).index)


async def check(client: Client, chat: str, model: Model) -> None:
    assert (await client.get(f"/chats/{chat}")).json["leaf_id"] == model.leaf
    page = (await client.get(f"/chats/{chat}/messages?limit=100")).json["items"]
    assert [m["id"] for m in page] == model.branch()
    for message in page:
        assert message["parent_id"] == model.parents[message["id"]]
        assert message["sibling_ids"] == model.siblings(message["id"])
    exported = (await client.get(f"/chats/{chat}/export")).json["messages"]
    assert {m["id"]: m["parent_id"] for m in exported} == model.parents


async def step(client: Client, chat: str, model: Model, chance: random.Random) -> None:
    ids = list(model.parents)
    kind = chance.choice(["send", "send", "edit", "again", "delete", "show", "fork"])
    if kind == "send" or not ids:
        model.add(await client.reply(chat, "Hello"), model.leaf)
        return
    one = chance.choice(ids)
    user = model.roles[one] == "user"
    if kind == "edit" and user:
        body = {"content": "Hi", "stream": False}
        answer = await client.patch(f"/messages/{one}", json=body)
        model.add(answer.json, model.parents[one])
    elif kind == "again" and not user:
        path = f"/messages/{one}/regenerate"
        answer = await client.post(path, json={"stream": False})
        model.add(answer.json, None)
    elif kind == "delete" and chance.random() < 0.5:
        assert (await client.delete(f"/messages/{one}")).status == 204
        model.remove(one)
    elif kind == "show":
        await client.patch(f"/chats/{chat}", json={"leaf_id": one})
        model.show(one)
    elif kind == "fork":
        answer = await client.post(f"/chats/{chat}/fork", json={"message_id": one})
        await client.delete(f"/chats/{answer.json['id']}")


@pytest.mark.parametrize("seed", [1, 2])
async def test_any_run_of_operations_leaves_the_tree_that_a_model_says(
    server: Server, seed: int
) -> None:
    chance, client, model = random.Random(seed), await server.client(), Model()
    chat = await client.chat(title="Tree")

    for _ in range(STEPS):
        await step(client, chat, model, chance)
        await check(client, chat, model)


async def test_operations_at_once_never_fail_on_our_side(server: Server) -> None:
    client = await server.client()
    chat = await client.chat(title="Tree")
    reply = await client.reply(chat, "Hello")
    question = reply["parent_id"]
    body = {"content": "Hi", "stream": False}

    answers = await asyncio.gather(
        *(client.patch(f"/messages/{question}", json=body) for _ in range(3)),
        *(
            client.post(f"/messages/{reply['id']}/regenerate", json={"stream": False})
            for _ in range(3)
        ),
        client.post(f"/chats/{chat}/messages", json=body),
        client.delete(f"/messages/{question}"),
        client.patch(f"/chats/{chat}", json={"leaf_id": question}),
        client.post(f"/chats/{chat}/share"),
        client.post(f"/chats/{chat}/fork"),
    )

    assert {a.status for a in answers} <= {200, 201, 204, 404, 409}
    leaf = (await client.get(f"/chats/{chat}")).json["leaf_id"]
    page = await client.messages(chat)
    assert [m["id"] for m in page][:1] == ([leaf] if leaf else [])
