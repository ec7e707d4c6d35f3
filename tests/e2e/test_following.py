"""Clients that drop, come back, read along, read slowly, and stop replies."""

import asyncio
import random
import socket
import time

import aiohttp
import pytest

from tests.client import Client
from tests.e2e.conftest import Begin, Provider, with_any_provider
from tests.e2e.processes import Server
from tests.e2e.reading import Reader
from tests.fakes.faults import FaultPlan, numbered_words

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def read_in_pieces(
    reader: Reader, chat: str, content: str, chance: random.Random
) -> int:
    """Ask, and be cut at random points until the end; gives the number of cuts."""
    await reader.ask(chat, content, words=chance.randint(1, 40))
    cuts = 0
    while reader.end is None:
        cuts += 1
        await asyncio.sleep(chance.choice([0, 0.001, 0.03]))
        await reader.resume(words=chance.randint(1, 40))
    return cuts


async def test_a_client_cut_again_and_again_gets_every_byte_once(
    server: Server, provider: Provider
) -> None:
    """F2."""
    provider.fake.plan.chunk_delay = 0.002
    reader = Reader(await server.client())
    chat = await reader.client.chat(model=provider.model, title="Named")

    cuts = await read_in_pieces(reader, chat, "Say 400 words", random.Random(1848))

    assert cuts >= 10
    assert reader.offsets == [0]
    assert reader.text == numbered_words(400)
    assert reader.message["text"] == reader.text
    again = await reader.client.get(
        f"/messages/{reader.message_id}/stream",
        headers={"Last-Event-ID": reader.last_id},
    )
    assert (again.status, again.body) == (204, b"")


async def test_many_turns_at_once_lose_nothing_though_clients_drop(
    server: Server, provider: Provider
) -> None:
    """F2: 20 turns, a third of their clients are cut again and again."""
    provider.fake.plan.chunk_delay = 0.003
    client = await server.client()
    readers = [Reader(client) for _ in range(20)]

    async def turn(number: int, reader: Reader) -> None:
        chat = await client.chat(model=provider.model, title="Named")
        content = f"Say {100 + number} words"
        if number % 3:
            await reader.ask(chat, content)
        else:
            await read_in_pieces(reader, chat, content, random.Random(number))

    await asyncio.gather(*(turn(n, reader) for n, reader in enumerate(readers)))

    for number, reader in enumerate(readers):
        assert reader.text == numbered_words(100 + number)
        assert reader.message["text"] == reader.text
        assert reader.message["status"] == "complete"


@with_any_provider
async def test_two_clients_that_follow_at_once_both_get_everything(
    server: Server, provider: Provider
) -> None:
    """F2."""
    provider.fake.plan.chunk_delay = 0.002
    first = Reader(await server.client())
    second = Reader(server.as_before(first.client))
    chat = await first.client.chat(model=provider.model, title="Named")

    async with first.client.asking(chat, "Say 150 words") as stream:
        await first.read(stream, words=20)
        second.message_id = first.message_id
        await asyncio.gather(first.read(stream), second.resume())

    assert first.text == second.text == numbered_words(150)
    assert first.message == second.message


@with_any_provider
async def test_a_slow_reader_holds_nobody_up_and_misses_nothing(
    begin: Begin, provider: Provider
) -> None:
    """F2: more comes than all the buffers between server and client take."""
    text = " ".join(f"{number:03d}" + "x" * 2**14 for number in range(120))
    provider.fake.plan = FaultPlan(text=text)
    server = await begin()
    brisk = Reader(await server.client())
    chat = await brisk.client.chat(model=provider.model, title="Named")
    connector = aiohttp.TCPConnector(force_close=True, socket_factory=_narrow_socket)
    async with aiohttp.ClientSession(connector=connector) as http:
        slow = Reader(Client(http, server.url))
        slow.client.use(brisk.client.tokens)
        async with slow.client.asking(chat, "Say it") as stream:
            begun = await stream.response.content.readuntil(b"\n\n")
            slow.read_all(begun)
            brisk.message_id = slow.message_id
            path = f"/messages/{brisk.message_id}/stream"
            brisk.read_all((await brisk.client.get(path)).body)
            assert brisk.message["status"] == "complete"
            assert f"/chats/{chat}/messages" not in server.log  # not answered yet
            slow.read_all(await stream.response.content.read())

    assert brisk.text == slow.text == text
    assert brisk.message == slow.message


def _narrow_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    sock = socket.socket(address[0], address[1])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
    return sock


async def test_stop_ends_the_reply_and_the_call_of_the_model_within_a_second(
    server: Server, provider: Provider
) -> None:
    """F2, stop; and the provider sees that the caller has left."""
    provider.fake.plan.chunk_delay = 0.005
    reader = Reader(await server.client())
    other = server.as_before(reader.client)
    chat = await reader.client.chat(model=provider.model, title="Named")

    async with reader.client.asking(chat, "Say 5000 words") as stream:
        await reader.read(stream, words=20)
        (call,) = provider.fake.calls
        began = time.monotonic()
        stopped = await other.post(f"/messages/{reader.message_id}/stop")
        await reader.read(stream)
        await asyncio.wait_for(call.ended.wait(), 1)
        assert time.monotonic() - began < 1

    assert call.outcome == "dropped"
    assert stopped.status == 200
    assert stopped.json == reader.message
    assert reader.message["status"] == "stopped"
    assert reader.message["text"] == reader.text
    assert numbered_words(5000).startswith(reader.text)


@with_any_provider
async def test_stop_ends_a_call_that_stalls(server: Server, provider: Provider) -> None:
    """F2 and F3: there is no chunk to wait for."""
    provider.fake.plan.faults = ["stall"]
    reader = Reader(await server.client())
    chat = await reader.client.chat(model=provider.model, title="Named")

    async with reader.client.asking(chat, "Say 50 words") as stream:
        await reader.read(stream, words=5)
        stopped = await reader.client.post(f"/messages/{reader.message_id}/stop")
        await reader.read(stream)

    (call,) = provider.fake.calls
    await asyncio.wait_for(call.ended.wait(), 1)
    assert reader.message == stopped.json
    assert reader.text == stopped.json["text"]
