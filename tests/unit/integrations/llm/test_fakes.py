"""The fake model servers themselves: what other tests rely on."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from app.core.config import ROOT
from app.integrations.llm.messages_api import GO_ON
from tests.fakes.faults import FaultPlan, numbered_words, pieces
from tests.fakes.openai import FakeOpenAI

PATHS = {
    "anthropic": "/v1/messages",
    "bedrock": "/model/anthropic.claude-x/invoke-with-response-stream",
    "ollama": "/api/chat",
    "openai": "/v1/chat/completions",
}


@asynccontextmanager
async def process(name: str, *options: str) -> AsyncIterator[str]:
    """A fake in a process of its own; gives its URL."""
    running = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        f"tests.fakes.{name}",
        *options,
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
    )
    assert running.stdout is not None
    line = (await running.stdout.readline()).decode()
    try:
        yield line.removeprefix("listening on ").strip()
    finally:
        running.terminate()
        assert await running.wait() == 0


@pytest.mark.parametrize("name", ["anthropic", "bedrock", "ollama", "openai"])
async def test_they_run_as_processes_steered_over_http(name: str) -> None:
    async with (
        process(name, "--words", "3", "--fault", "unavailable") as url,
        aiohttp.ClientSession(url) as session,
    ):
        path = PATHS[name]
        body = {"model": "fake-large", "messages": [{"role": "user", "content": "a"}]}
        async with session.post(path, json=body) as answer:
            assert answer.status == 503
        async with session.post("/_plan", json={"faults": ["cut"]}) as answer:
            assert answer.status == 200
        async with session.post("/_plan", json={"faults": ["odd"]}) as answer:
            assert answer.status == 400
            assert await answer.json() == {"error": "unknown: odd"}
        async with session.get("/_requests") as answer:
            [call] = await answer.json()
        assert (call["path"], call["outcome"]) == (path, "refused")
        assert call["body"] == body


async def test_the_openai_fake_answers_in_one_piece_too() -> None:
    question = {"role": "user", "content": "Give me 3 words."}
    body = {"model": "fake-small", "messages": [question]}
    async with (
        FakeOpenAI() as server,
        aiohttp.ClientSession(server.url) as session,
        session.post("/v1/chat/completions", json=body) as answer,
    ):
        told = await answer.json()

    assert told["choices"][0]["message"]["content"] == "w0001 w0002 w0003"
    assert told["usage"]["completion_tokens"] == 3


def test_a_reply_is_chosen_by_the_messages() -> None:
    plan = FaultPlan(words=4)

    def answer(*dialogue: tuple[str, str]) -> str:
        return plan.answer(dialogue, go_on=GO_ON)

    assert answer(("user", "a")) == numbered_words(4)
    assert answer(("user", "Write 2 words")) == "w0001 w0002"
    assert answer(("user", "a"), ("assistant", "w0001 w0")) == "002 w0003 w0004"
    interrupted = (("user", "2 words"), ("assistant", "w0001 "))
    assert answer(*interrupted, ("user", GO_ON)) == "w0002"
    assert answer(*interrupted, ("user", "b")) == numbered_words(4)
    plan.reply = lambda dialogue: dialogue[-1][1].upper()
    assert answer(("user", "a")) == "A"


def test_pieces_lose_nothing() -> None:
    assert "".join(pieces(" a  b\n\nc ")) == " a  b\n\nc "
