"""The end of a session is felt at once, by requests and open streams (T3, T4)."""

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from tests.client import Client
from tests.e2e.conftest import Provider, with_any_provider
from tests.e2e.processes import PASSWORD, Server
from tests.e2e.reading import Reader
from tests.fakes.faults import numbered_words

pytestmark = pytest.mark.asyncio(loop_scope="session")

EndSession = Callable[[Client, Client], Awaitable[None]]
"""Ends the first client's session; the second one is another session of its user."""


async def log_out(client: Client, _other: Client) -> None:
    token = {"refresh_token": client.tokens["refresh_token"]}
    assert (await client.post("/auth/logout", json=token)).status == 204


async def revoke(client: Client, other: Client) -> None:
    found = (await client.get("/auth/sessions")).json["items"]
    (current,) = (session["id"] for session in found if session["current"])
    assert (await other.delete(f"/auth/sessions/{current}")).status == 204


async def change_the_password(_client: Client, other: Client) -> None:
    change = {
        "current_password": PASSWORD,
        "new_password": f"{PASSWORD} and a lid",
        "end_other_sessions": True,
    }
    assert (await other.post("/auth/change-password", json=change)).status == 204


async def use_a_refresh_token_twice(client: Client, _other: Client) -> None:
    """As a thief's copy would be; this server gives no grace."""
    token = {"refresh_token": client.tokens["refresh_token"]}
    assert (await client.post("/auth/refresh", json=token)).status == 200
    assert (await client.post("/auth/refresh", json=token)).status == 401


@with_any_provider
@pytest.mark.parametrize(
    "end_session",
    [log_out, revoke, change_the_password, use_a_refresh_token_twice],
    ids=lambda function: function.__name__,
)
async def test_the_end_of_a_session_ends_its_streams_and_tokens_within_a_second(
    server: Server, provider: Provider, end_session: EndSession
) -> None:
    """T4: other sessions of the same user go on, and so does the reply."""
    provider.fake.plan.chunk_delay = 0.005
    client = await server.client()
    email = (await client.get("/auth/me")).json["email"]
    other = server.anonymous()
    await other.login(email, PASSWORD)
    chat = await client.chat(model=provider.model, title="Named")
    reader, another = Reader(client), Reader(other)

    async with client.asking(chat, "Say 100 words") as stream:
        await reader.read(stream, words=20)
        another.message_id = reader.message_id
        following = asyncio.create_task(another.resume())
        began = time.monotonic()
        await end_session(client, other)
        await reader.read(stream)
        assert time.monotonic() - began < 1

    assert reader.end is not None
    assert reader.end.name == "error"
    assert reader.end.data["problem"]["code"] == "unauthenticated"
    for path in ("/auth/me", "/chats", f"/messages/{reader.message_id}/stream"):
        answer = await client.get(path)
        assert answer.status == 401
        assert answer.json["code"] == "unauthenticated"
    refresh = {"refresh_token": client.tokens["refresh_token"]}
    assert (await client.post("/auth/refresh", json=refresh)).status == 401
    await following
    assert another.text == numbered_words(100)
    assert (await other.get("/auth/me")).status == 200
    # Logged in again, the client goes on where its stream was ended.
    reader.client = other
    await reader.resume()
    assert reader.text == numbered_words(100)
