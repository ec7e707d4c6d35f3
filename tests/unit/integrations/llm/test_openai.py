"""The OpenAI-compatible provider against a fake server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest

from app.core.config import ModelSettings
from app.integrations.llm import openai
from app.integrations.llm.base import (
    ChatMessage,
    ProviderAuthError,
    ProviderError,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    Stop,
    TextDelta,
    Usage,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from app.integrations.llm.messages_api import GO_ON
from app.integrations.llm.openai import OpenAIProvider
from tests.fakes.faults import Fault, numbered_words
from tests.fakes.openai import CONTEXT_WINDOW, FakeOpenAI
from tests.unit.integrations.llm.calls import Outcome, ask, assistant, outcome, user
from tests.unit.integrations.llm.conftest import raw_server

MODEL = "fake-large"
CATALOGUE = Catalogue.load()


@pytest.fixture
async def server() -> AsyncIterator[FakeOpenAI]:
    async with FakeOpenAI(api_key="sk-right") as running:
        yield running


@pytest.fixture
def provider(server: FakeOpenAI, http: Http) -> OpenAIProvider:
    return connect(server.base_url, http)


def connect(url: str, http: Http, **settings: Any) -> OpenAIProvider:
    values = {"openai_base_url": url, "openai_api_key": "sk-right", **settings}
    return OpenAIProvider(ModelSettings(**values), CATALOGUE, http)


async def test_a_whole_answer(server: FakeOpenAI, provider: OpenAIProvider) -> None:
    result = await outcome(provider.stream(ask(MODEL, user("Hi"), system="Be brief.")))

    assert result.error is None
    assert result.text == numbered_words(100)
    assert result.usages[0].estimated
    assert result.events[-2:] == [Usage(25, 100), Stop("end_turn")]
    assert server.calls[0].body == {
        "model": MODEL,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hi"},
        ],
        "max_tokens": 4096,
        "stream": True,
        "stream_options": {"include_usage": True},
    }


async def test_text_in_any_script_and_thinking(
    server: FakeOpenAI, provider: OpenAIProvider
) -> None:
    server.plan.update({"text": "Grüße 😀 漢字", "thinking": "Hm"})

    result = await outcome(provider.stream(ask(MODEL)))

    assert result.text == "Grüße 😀 漢字"
    assert result.thinking == "Hm"


async def test_a_server_without_figures_gets_estimates(
    server: FakeOpenAI, provider: OpenAIProvider
) -> None:
    server.plan.update({"tells_usage": False, "text": "w" * 40})

    result = await outcome(provider.stream(ask(MODEL, user("12345678"))))

    assert result.usages == [
        Usage(6, 0, estimated=True),
        Usage(6, 10, estimated=True),
    ]
    assert result.events[-1] == Stop("end_turn")


async def test_a_server_without_a_key_needs_none(http: Http) -> None:
    async with FakeOpenAI() as server:
        provider = connect(server.base_url + "/", http, openai_api_key=None)

        assert (await outcome(provider.stream(ask(MODEL)))).error is None
        assert "Authorization" not in server.calls[0].headers


@pytest.mark.parametrize("length", [0, 1, 6, 300, 598])
async def test_a_continued_text_has_every_byte_once(
    server: FakeOpenAI, provider: OpenAIProvider, length: int
) -> None:
    given = numbered_words(100)[:length]

    result = await outcome(provider.stream(ask(MODEL, user("Hi"), assistant(given))))

    assert given + result.text == numbered_words(100)
    last = {"role": "user", "content": GO_ON if length else "Hi"}
    assert server.calls[0].body["messages"][-1] == last


class TestBody:
    def body(self, http: Http, *messages: ChatMessage, url: str = "") -> Any:
        return connect(url, http)._body(ask(MODEL, *messages))

    def test_openai_itself_has_another_name_for_the_limit(self, http: Http) -> None:
        assert self.body(http)["max_completion_tokens"] == 4096
        assert self.body(http, url="http://localhost/v1")["max_tokens"] == 4096

    def test_a_users_blocks_are_paragraphs_and_an_assistants_one_text(
        self, http: Http
    ) -> None:
        thought = {"type": "thinking", "thinking": "Hm", "signature": "x"}
        hidden = {"type": "redacted_thinking", "data": "x"}
        answer = ChatMessage(
            "assistant", [thought, hidden, *assistant("c", "d").content]
        )

        body = self.body(http, user("a", "b"), answer, user("e"))

        assert body["messages"] == [
            {"role": "user", "content": "a\n\nb"},
            {"role": "assistant", "content": "cd"},
            {"role": "user", "content": "e"},
        ]

    def test_what_is_no_text_is_refused_by_name(self, http: Http) -> None:
        with pytest.raises(ProviderRejectedError, match="'image'"):
            self.body(http, ChatMessage("user", [{"type": "image", "source": {}}]))


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "error", "words"),
        [
            ("throttle_first", ProviderThrottledError, 0),
            ("unavailable", ProviderUnavailableError, 0),
            ("midstream_exception", ProviderThrottledError, 5),
            ("cut", ProviderStreamBrokenError, 5),
            ("stall", ProviderTimeoutError, 5),
            ("missing_end", ProviderStreamBrokenError, 100),
        ],
    )
    async def test_each_is_a_typed_error_after_the_text_that_came(
        self,
        server: FakeOpenAI,
        provider: OpenAIProvider,
        fault: Fault,
        error: type[ProviderError],
        words: int,
    ) -> None:
        server.plan.faults = [fault]

        result = await outcome(provider.stream(ask(MODEL)))

        assert type(result.error) is error
        assert result.text.split() == numbered_words(words).split()
        assert bool(result.usages) == bool(words)
        assert not any(isinstance(event, Stop) for event in result.events)
        assert (await outcome(provider.stream(ask(MODEL)))).error is None

    async def test_leaving_ends_the_call_at_the_server(
        self, server: FakeOpenAI, provider: OpenAIProvider
    ) -> None:
        server.plan.faults = ["stall"]

        async with aclosing(provider.stream(ask(MODEL))) as events:  # type: ignore[type-var]  # it is an async generator
            async for event in events:
                if isinstance(event, TextDelta):
                    break

        await asyncio.wait_for(server.calls[0].ended.wait(), 5)
        assert server.calls[0].outcome == "dropped"

    async def test_a_finished_call_leaves_its_connection_to_the_next(
        self, server: FakeOpenAI, provider: OpenAIProvider
    ) -> None:
        for _ in range(3):
            await outcome(provider.stream(ask(MODEL)))

        assert len({call.peer for call in server.calls}) == 1

    async def test_a_closed_port_names_the_variable_to_check(self, http: Http) -> None:
        async with raw_server(_answering(b"")) as url:
            pass

        result = await outcome(connect(url, http).stream(ask(MODEL)))

        assert type(result.error) is ProviderUnavailableError
        assert "OPENAI_BASE_URL" in str(result.error)


class TestStream:
    """Answers that the fake does not give, byte by byte."""

    @pytest.mark.parametrize(
        ("theirs", "ours"),
        [
            ("stop", "end_turn"),
            ("length", "max_tokens"),
            ("tool_calls", "tool_use"),
            ("function_call", "tool_use"),
            ("content_filter", "refusal"),
            ("from_the_future", "end_turn"),
        ],
    )
    async def test_stop_reasons(self, http: Http, theirs: str, ours: str) -> None:
        result = await stream(http, finish(theirs), b"[DONE]")

        last = result.events[-1]
        assert isinstance(last, Stop)
        assert last.reason == ours

    @pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\n", b""])
    async def test_the_end_may_lack_its_blank_line(
        self, http: Http, end: bytes
    ) -> None:
        result = await stream(http, content("a"), finish("stop"), end=b"[DONE]" + end)

        assert result.error is None
        assert result.text == "a"

    async def test_nothing_counts_after_the_end(self, http: Http) -> None:
        result = await stream(http, finish("stop"), b"[DONE]", content("a"))

        assert result.events[-1] == Stop("end_turn")
        assert result.text == ""

    async def test_cached_tokens_are_told_apart(self, http: Http) -> None:
        details = {"cached_tokens": 30, "cache_write_tokens": 20}
        figures = {"prompt_tokens": 100, "completion_tokens": 0}
        usage = {"choices": [], "usage": {**figures, "prompt_tokens_details": details}}

        result = await stream(http, finish("stop"), usage, b"[DONE]")

        assert result.usages[-1] == Usage(
            50, 0, cache_read_tokens=30, cache_write_tokens=20
        )

    async def test_half_a_figure_is_none(self, http: Http) -> None:
        usage = {"choices": [], "usage": {"completion_tokens": 7}}

        result = await stream(http, finish("stop"), usage, b"[DONE]")

        assert result.usages[-1] == Usage(8, 0, estimated=True)

    @pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
    async def test_thinking_has_two_names(self, http: Http, key: str) -> None:
        chunk = {"choices": [{"delta": {key: "Hm", "content": None}}]}

        assert (await stream(http, chunk, finish("stop"), b"[DONE]")).thinking == "Hm"

    async def test_a_refusal_is_text(self, http: Http) -> None:
        chunk = {"choices": [{"delta": {"refusal": "No."}}]}

        assert (await stream(http, chunk, finish("stop"), b"[DONE]")).text == "No."

    @pytest.mark.parametrize(
        "chunks",
        [
            (content("a"),),
            (content("a"), b"[DONE]"),
            (content("a"), b"{"),
            (content("a"), b"[]"),
            (content("a"), {"choices": [{"delta": {"content": ["b"]}}]}),
        ],
        ids=["no reason", "no reason but an end", "half", "a list", "no text"],
    ) if False else pytest.mark.parametrize("number", range(5))
    async def test_what_is_no_proper_answer_is_broken(
        self, http: Http, number: int
    ) -> None:
        improper: list[tuple[Any, ...]] = [
            (),
            (b"[DONE]",),
            (b"{",),
            (b"[]",),
            ({"choices": [{"delta": {"content": ["b"]}}]},),
        ]

        result = await stream(http, content("a"), *improper[number])

        assert type(result.error) is ProviderStreamBrokenError
        assert result.text == "a"
