"""Ollama against a fake server."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.config import ModelSettings
from app.integrations.llm.base import (
    ChatMessage,
    ChatRequest,
    ProviderError,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    Stop,
    TextDelta,
    ToolUseStart,
    Usage,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from app.integrations.llm.ollama import MAX_LINE, OllamaProvider, _Lines
from app.integrations.llm.ollama_api import messages
from tests.fakes.faults import Fault, numbered_words
from tests.fakes.ollama import FakeOllama
from tests.unit.integrations.llm.calls import ask, assistant, outcome, text, user
from tests.unit.integrations.llm.conftest import raw_server
from tests.unit.integrations.llm.test_eventstream import split

LLAMA = "llama3.2:latest"
CATALOGUE = Catalogue.load()


@pytest.fixture
async def server() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as running:
        yield running


@pytest.fixture
def provider(server: FakeOllama, http: Http) -> OllamaProvider:
    return connect(server.url + "/", http)


def connect(url: str, http: Http, **settings: Any) -> OllamaProvider:
    values = {"ollama_base_url": url, **settings}
    return OllamaProvider(ModelSettings(**values), CATALOGUE, http)


async def test_a_whole_answer(server: FakeOllama, provider: OllamaProvider) -> None:
    result = await outcome(provider.stream(ask(LLAMA, user("Hi"), system="Be brief.")))

    assert result.error is None
    assert result.text == numbered_words(100)
    assert result.usages[0].estimated
    assert result.events[-2:] == [Usage(25, 100), Stop("end_turn")]
    assert server.calls[0].body == {
        "model": LLAMA,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "stream": True,
        "options": {"num_ctx": 16_384, "num_predict": 4096},
    }


async def test_thinking_text_and_a_call_of_a_tool(
    server: FakeOllama, provider: OllamaProvider
) -> None:
    server.plan.update({"text": "Grüße 😀", "thinking": "Hm"})
    server.plan.update({"tool": "weather", "tool_input": '{"city": "Bern"}'})
    tool = {"name": "weather", "input_schema": {"type": "object"}}

    result = await outcome(provider.stream(replace(ask(LLAMA), tools=[tool])))

    assert result.text == "Grüße 😀"
    assert result.thinking == "Hm"
    [call] = [e for e in result.events if isinstance(e, ToolUseStart)]
    assert (call.name, call.input) == ("weather", '{"city":"Bern"}')
    assert call.id.startswith("call_")
    assert result.events[-1] == Stop("tool_use")
    assert server.calls[0].body["tools"][0]["function"]["name"] == "weather"


async def test_missing_figures_are_estimated(
    server: FakeOllama, provider: OllamaProvider
) -> None:
    server.plan.update({"tells_usage": False, "text": "w" * 40})

    result = await outcome(provider.stream(ask(LLAMA, user("12345678"))))

    assert result.usages[-1] == Usage(6, 10, estimated=True)


@pytest.mark.parametrize("length", [0, 1, 6, 300, 598])
async def test_a_continued_text_has_every_byte_once(
    provider: OllamaProvider, length: int
) -> None:
    given = numbered_words(100)[:length]

    result = await outcome(provider.stream(ask(LLAMA, user("Hi"), assistant(given))))

    assert given + result.text == numbered_words(100)


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "error", "words"),
        [
            ("throttle_first", ProviderThrottledError, 0),
            ("unavailable", ProviderUnavailableError, 0),
            ("midstream_exception", ProviderUnavailableError, 5),
            ("bad_crc", ProviderStreamBrokenError, 5),
            ("cut", ProviderStreamBrokenError, 5),
            ("stall", ProviderTimeoutError, 5),
            ("missing_end", ProviderStreamBrokenError, 100),
        ],
    )
    async def test_each_is_a_typed_error_after_the_text_that_came(
        self,
        server: FakeOllama,
        provider: OllamaProvider,
        fault: Fault,
        error: type[ProviderError],
        words: int,
    ) -> None:
        server.plan.faults = [fault]

        result = await outcome(provider.stream(ask(LLAMA)))

        assert type(result.error) is error
        assert result.text.split() == numbered_words(words).split()
        assert bool(result.usages) == bool(words)
        assert not any(isinstance(event, Stop) for event in result.events)
        assert (await outcome(provider.stream(ask(LLAMA)))).error is None

    async def test_leaving_ends_the_call_at_the_server(
        self, server: FakeOllama, provider: OllamaProvider
    ) -> None:
        server.plan.faults = ["stall"]

        async with aclosing(provider.stream(ask(LLAMA))) as events:  # type: ignore[type-var]  # it is an async generator
            async for event in events:
                if isinstance(event, TextDelta):
                    break

        await asyncio.wait_for(server.calls[0].ended.wait(), 5)
        assert server.calls[0].outcome == "dropped"

    async def test_a_model_that_there_is_not(self, provider: OllamaProvider) -> None:
        result = await outcome(provider.stream(ask("nonsense")))

        assert type(result.error) is ProviderRejectedError
        assert "'nonsense' not found" in str(result.error)


class TestModels:
    async def test_they_are_those_of_use_with_what_each_can_do(
        self, provider: OllamaProvider
    ) -> None:
        llama, tiny, nomic, old = await provider.models()

        assert (llama.name, llama.context_window) == (f"ollama/{LLAMA}", 16_384)
        assert llama.capabilities == {"text", "tools"}
        assert (tiny.context_window, tiny.max_output_tokens) == (6144, 3072)
        assert tiny.capabilities == {"text", "vision", "thinking"}
        assert (nomic.context_window, nomic.max_output_tokens) == (2048, 0)
        assert nomic.capabilities == {"embeddings"}
        assert nomic.dimensions == 8
        assert old.context_window == 4096
        assert old.capabilities == {"text", "tools"}
        assert provider.missing is None

    async def test_one_that_does_not_tell_is_known_by_its_name(
        self, server: FakeOllama, provider: OllamaProvider
    ) -> None:
        server.models = {"mxbai-embed-large:v1": {}}

        [info] = await provider.models()

        assert info.capabilities == {"embeddings"}
        assert info.max_output_tokens == 0

    async def test_what_it_tells_goes_before_its_name(
        self, server: FakeOllama, provider: OllamaProvider
    ) -> None:
        server.models = {"embedded-chat:1b": {"capabilities": ["completion"]}}

        [info] = await provider.models()

        assert info.capabilities == {"text"}
        assert 0 < info.max_output_tokens < info.context_window

    async def test_each_is_described_once(
        self, server: FakeOllama, provider: OllamaProvider
    ) -> None:
        await asyncio.gather(provider.models(), provider.models())
        provider._list._until = 0
        await provider.models()

        assert server.times_listed == 2
        assert server.times_shown == len(server.models)

    async def test_it_is_found_by_itself_when_it_answers_later(
        self, server: FakeOllama, provider: OllamaProvider
    ) -> None:
        server.plan.lists_models = False
        assert await provider.models() == []
        assert "does not answer at" in str(provider.missing)
        server.plan.lists_models = True

        assert await provider.models() == []
        assert server.times_listed == 1
        assert provider._list._until > time.monotonic() + 25
        provider._list._until = 0  # as if that time had gone by
        assert await provider.models()
        assert provider.missing is None

    async def test_where_nothing_listens_it_says_so(self, http: Http) -> None:
        async with raw_server(_silent) as url:
            pass
        provider = connect(url, http)

        assert provider.missing is None  # nobody has looked yet
        assert await provider.models() == []
        assert "OLLAMA_BASE_URL" in str(provider.missing)

    async def test_one_that_says_nothing_is_not_waited_for(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.integrations.llm.ollama.ANSWER_SECONDS", 0.1)
        pool = Http(ModelSettings())

        async with raw_server(_silent) as url, asyncio.timeout(5):
            assert await connect(url, pool).models() == []
            await pool.close()

    async def test_one_without_models_says_what_to_do(
        self, server: FakeOllama, provider: OllamaProvider
    ) -> None:
        server.models = {}

        assert await provider.models() == []
        assert "ollama pull" in str(provider.missing)

    async def test_switched_off_it_never_looks(self, http: Http) -> None:
        provider = connect("off", http)

        assert await provider.models() == []
        assert "switched off" in str(provider.missing)
        result = await outcome(provider.stream(ask(LLAMA)))
        assert type(result.error) is ProviderNotConfiguredError
        assert http.connections == 0


async def _silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


class TestMessages:
    def test_images_documents_and_tools(self) -> None:
        source = {"type": "base64", "media_type": "image/png", "data": "aWc="}
        note = {"type": "text", "media_type": "text/plain", "data": "A note."}
        call = {"type": "tool_use", "id": "1", "name": "clock", "input": {"a": 1}}
        result = {"type": "tool_result", "tool_use_id": "1", "content": [text("noon")]}
        question = ChatMessage(
            "user",
            [
                text("Look:"),
                {"type": "image", "source": source},
                {"type": "document", "source": note, "title": "Memo"},
            ],
        )
        answer = ChatMessage("assistant", [{"type": "thinking"}, text("Hm"), call])
        told = ChatMessage("user", [result, text("So?")])

        assert messages(ChatRequest("m", [question, answer, told])) == [
            {
                "role": "user",
                "content": "Look:\n\nMemo\n\nA note.",
                "images": ["aWc="],
            },
            {
                "role": "assistant",
                "content": "Hm",
                "tool_calls": [{"function": {"name": "clock", "arguments": {"a": 1}}}],
            },
            {"role": "tool", "tool_name": "clock", "content": "noon"},
            {"role": "user", "content": "So?"},
        ]

    def test_a_tools_images_are_shown_by_the_user(self) -> None:
        image = {"type": "image", "source": {"type": "base64", "data": "aWc="}}
        told = {"type": "tool_result", "tool_use_id": "1", "content": [image]}
        failed = {**told, "is_error": True}

        assert messages(ChatRequest("m", [ChatMessage("user", [failed])])) == [
            {"role": "tool", "tool_name": "", "content": "The tool failed:"},
            {"role": "user", "content": "", "images": ["aWc="]},
        ]

    @pytest.mark.parametrize(
        ("block", "told"),
        [
            ({"type": "document", "source": {"type": "base64"}}, "'document'"),
            ({"type": "image", "source": {"type": "url"}}, "'image' by address"),
            ({"type": "audio"}, "'audio'"),
            (
                {
                    "type": "tool_result",
                    "tool_use_id": "1",
                    "content": [{"type": "audio"}],
                },
                "'audio'",
            ),
        ],
    )
    def test_what_it_cannot_take_is_refused_by_name(
        self, block: dict[str, Any], told: str
    ) -> None:
        with pytest.raises(ProviderRejectedError, match=told):
            messages(ChatRequest("m", [ChatMessage("user", [block])]))


class TestLines:
    @given(
        st.lists(st.binary(max_size=9).map(lambda b: b.replace(b"\n", b""))),
        st.lists(st.integers(min_value=0), max_size=9),
    )
    def test_any_split_gives_the_same_lines(
        self, lines: list[bytes], places: list[int]
    ) -> None:
        whole = b"".join(line + b"\n" for line in lines)
        reader = _Lines()

        found = [line for part in split(whole, places) for line in reader.feed(part)]

        assert found == [line for line in lines if line.strip()]

    def test_an_endless_line_is_refused(self) -> None:
        reader = _Lines()
        for _ in range(MAX_LINE // 2**20):
            reader.feed(bytes(2**20))

        with pytest.raises(ProviderStreamBrokenError, match="too long"):
            reader.feed(b"x")
