"""The OpenAI-compatible provider against a fake server."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import pytest

from app.core.config import ModelSettings
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
    ToolInputDelta,
    ToolUseStart,
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


Chunk = bytes | dict[str, Any]


def content(words: str) -> Chunk:
    return {"choices": [{"index": 0, "delta": {"content": words}}]}


def finish(reason: str) -> Chunk:
    return {"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}


async def stream(http: Http, *chunks: Chunk, end: bytes = b"") -> Outcome:
    """What comes of an answer of these chunks, to a request of 8 estimated tokens."""
    data = [c if isinstance(c, bytes) else json.dumps(c).encode() for c in chunks]
    body = b"".join(b"data: %b\n\n" % d for d in data) + (
        b"data: " + end if end else b""
    )
    async with raw_server(_answering(b"HTTP/1.1 200 OK\r\n\r\n" + body)) as url:
        request = ask(MODEL, user("1234567890123456"))
        return await outcome(connect(url, http).stream(request))


async def refused(http: Http, status: int, body: str) -> Outcome:
    answer = _ok(body).replace(b"200 OK", f"{status} No".encode())
    async with raw_server(_answering(answer)) as url:
        return await outcome(connect(url, http).stream(ask(MODEL)))


def _ok(body: str) -> bytes:
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()


def _answering(answer: bytes) -> Any:
    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.write_eof()
        await reader.read()  # else unread bytes of the request would reset the answer

    return handle


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


async def test_a_call_of_a_tool(server: FakeOpenAI, provider: OpenAIProvider) -> None:
    given = '{"city": "Zürich"}'
    server.plan.update({"tool": "weather", "tool_input": given})
    tool = {"name": "weather", "input_schema": {"type": "object"}}

    result = await outcome(provider.stream(replace(ask(MODEL), tools=[tool])))

    assert ToolUseStart("call_1", "weather") in result.events
    pieces = [e.json for e in result.events if isinstance(e, ToolInputDelta)]
    assert "".join(pieces) == given
    assert result.events[-1] == Stop("tool_use")
    assert server.calls[0].body["tools"][0]["function"]["name"] == "weather"


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
        with pytest.raises(ProviderRejectedError, match="'audio'"):
            self.body(http, ChatMessage("user", [{"type": "audio", "source": {}}]))


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

    async def test_closing_the_provider_closes_its_connections(
        self, provider: OpenAIProvider, http: Http
    ) -> None:
        await outcome(provider.stream(ask(MODEL)))

        await provider.close()

        assert http.connections == 0

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

    async def test_thinking_is_told_apart_where_it_is_told(self, http: Http) -> None:
        details = {"completion_tokens_details": {"reasoning_tokens": 4}}
        figures = {"prompt_tokens": 1, "completion_tokens": 9, **details}

        result = await stream(
            http, finish("stop"), {"choices": [], "usage": figures}, b"[DONE]"
        )

        assert result.usages[-1] == Usage(1, 9, thinking_tokens=4)
        assert "thinking_tokens" not in result.usages[-1].as_dict()

    async def test_half_a_figure_is_none(self, http: Http) -> None:
        usage = {"choices": [], "usage": {"completion_tokens": 7}}

        result = await stream(http, finish("stop"), usage, b"[DONE]")

        assert result.usages[-1] == Usage(8, 0, estimated=True)

    @pytest.mark.parametrize("key", ["reasoning", "reasoning_content"])
    async def test_thinking_has_two_names(self, http: Http, key: str) -> None:
        chunk = {"choices": [{"delta": {key: "Hm", "content": None}}]}

        assert (await stream(http, chunk, finish("stop"), b"[DONE]")).thinking == "Hm"

    async def test_calls_of_tools_in_several_forms(self, http: Http) -> None:
        def calls(*told: dict[str, Any]) -> Chunk:
            return {"choices": [{"delta": {"tool_calls": told}}]}

        whole = {"function": {"name": "b", "arguments": "{}"}}
        result = await stream(
            http,
            calls({"index": 0, "id": "x", "function": {"name": "a"}}),
            calls({"index": 0, "id": "x", "function": {"arguments": "{}"}}),
            calls({"index": 1, **whole}),
            finish("stop"),
            b"[DONE]",
        )

        assert [e for e in result.events if not isinstance(e, Usage)] == [
            ToolUseStart("x", "a"),
            ToolInputDelta("{}"),
            ToolUseStart("call_2", "b", "{}"),
            Stop("tool_use"),
        ]

    async def test_calls_that_are_mixed_up_are_broken(self, http: Http) -> None:
        def call(index: int) -> Chunk:
            told = {"index": index, "function": {"name": "a", "arguments": "{"}}
            return {"choices": [{"delta": {"tool_calls": [told]}}]}

        result = await stream(http, call(0), call(1), call(0))

        assert type(result.error) is ProviderStreamBrokenError

    async def test_a_refusal_is_text(self, http: Http) -> None:
        chunk = {"choices": [{"delta": {"refusal": "No."}}]}

        assert (await stream(http, chunk, finish("stop"), b"[DONE]")).text == "No."

    @pytest.mark.parametrize(
        "chunks",
        [
            (),
            (b"[DONE]",),
            (b"{",),
            (b"[]",),
            ({"choices": [{"delta": {"content": ["b"]}}]},),
            (finish("stop"),),
        ],
    )
    async def test_what_has_no_proper_end_is_broken(
        self, http: Http, chunks: tuple[Chunk, ...]
    ) -> None:
        result = await stream(http, content("a"), *chunks)

        assert type(result.error) is ProviderStreamBrokenError
        assert result.text == "a"

    @pytest.mark.parametrize(
        ("chunk", "error"),
        [
            ({"error": {"code": "rate_limit_exceeded"}}, ProviderThrottledError),
            ({"error": {"code": 429, "message": "Slow."}}, ProviderThrottledError),
            ({"error": {"type": "server_error"}}, ProviderUnavailableError),
            ({"error": {"type": "invalid_request_error"}}, ProviderRejectedError),
            ({"error": "out of memory"}, ProviderUnavailableError),
            ({"object": "error", "type": "BadRequestError"}, ProviderRejectedError),
        ],
    )
    async def test_an_error_in_mid_stream_is_classified(
        self, http: Http, chunk: Chunk, error: type[ProviderError]
    ) -> None:
        result = await stream(http, content("a"), chunk)

        assert type(result.error) is error
        assert result.text == "a"


class TestRefusals:
    @pytest.mark.parametrize(
        ("status", "code", "type_", "error"),
        [
            (400, "rate_limit_exceeded", "requests", ProviderThrottledError),
            (429, "insufficient_quota", "insufficient_quota", ProviderAuthError),
            (400, "context_length_exceeded", "", ProviderRejectedError),
            (401, "invalid_api_key", "invalid_request_error", ProviderAuthError),
            (401, None, "invalid_request_error", ProviderAuthError),
            (404, "model_not_found", "invalid_request_error", ProviderRejectedError),
            (404, 404, "NotFoundError", ProviderRejectedError),
            (400, None, "exceed_context_size_error", ProviderRejectedError),
            (500, None, "server_error", ProviderUnavailableError),
            (503, None, "unavailable_error", ProviderUnavailableError),
            (429, None, "from_the_future", ProviderThrottledError),
        ],
    )
    async def test_code_and_type_go_before_the_status(
        self,
        http: Http,
        status: int,
        code: str | int | None,
        type_: str,
        error: type[ProviderError],
    ) -> None:
        body = {"message": "The reason.", "type": type_, "code": code}

        result = await refused(http, status, json.dumps({"error": body}))

        assert type(result.error) is error
        told = "The reason." in str(result.error)
        assert told == (error is not ProviderAuthError)

    @pytest.mark.parametrize(
        "body", ["<html>", "[]", '{"error": "x"}', '{"detail": "x"}']
    )
    async def test_what_has_no_code_goes_by_the_status(
        self, http: Http, body: str
    ) -> None:
        assert type((await refused(http, 429, body)).error) is ProviderThrottledError
        assert type((await refused(http, 400, body)).error) is ProviderRejectedError

    async def test_a_wrong_key(self, server: FakeOpenAI, http: Http) -> None:
        provider = connect(server.base_url, http, openai_api_key="sk-wrong")

        result = await outcome(provider.stream(ask(MODEL)))

        assert type(result.error) is ProviderAuthError
        assert "sk-" not in str(result.error)

    async def test_a_model_that_there_is_not(self, provider: OpenAIProvider) -> None:
        result = await outcome(provider.stream(ask("nonsense")))

        assert type(result.error) is ProviderRejectedError
        assert "'nonsense' does not exist" in str(result.error)


class TestModels:
    async def test_they_are_what_the_server_lists(
        self, provider: OpenAIProvider
    ) -> None:
        large, small, embedder = await provider.models()

        assert (large.name, small.name) == ("openai/fake-large", "openai/fake-small")
        assert large.context_window == CONTEXT_WINDOW
        assert small.context_window == 32_768
        assert small.capabilities == {"text", "tools"}
        assert (embedder.name, embedder.max_output_tokens) == ("openai/fake-embed", 0)
        assert embedder.capabilities == {"embeddings"}

    async def test_the_list_is_asked_for_once_by_many(
        self, server: FakeOpenAI, provider: OpenAIProvider
    ) -> None:
        lists = await asyncio.gather(*(provider.models() for _ in range(5)))

        assert all(len(models) == 3 for models in lists)
        assert server.times_listed == 1

    async def test_the_named_ones_go_before_the_listed(
        self, server: FakeOpenAI, http: Http
    ) -> None:
        provider = connect(server.base_url, http, openai_models=("gpt-4o", "own"))

        assert [m.id for m in await provider.models()] == ["gpt-4o", "own"]
        assert server.times_listed == 0

    async def test_a_failure_is_an_empty_list_and_not_believed_for_long(
        self, server: FakeOpenAI, provider: OpenAIProvider
    ) -> None:
        server.plan.lists_models = False
        assert await provider.models() == []
        server.plan.lists_models = True
        assert await provider.models() == []
        assert server.times_listed == 1
        assert provider._list._until <= time.monotonic() + 5

        provider._list._until = time.monotonic()  # as if that time had gone by
        assert len(await provider.models()) == 3
        assert provider._list._until > time.monotonic() + 50

    @pytest.mark.parametrize("body", ["<html>", "[]", "{}", '{"data": ["a"]}'])
    async def test_what_is_no_list_is_an_empty_one(self, http: Http, body: str) -> None:
        async with raw_server(_answering(_ok(body))) as url:
            assert await connect(url, http).models() == []

    async def test_a_server_that_is_not_there_has_an_empty_list(
        self, http: Http
    ) -> None:
        async with raw_server(_answering(b"")) as url:
            pass

        assert await connect(url, http).models() == []

    async def test_a_slow_list_is_not_waited_for(self) -> None:
        pool = Http(ModelSettings())

        async def silent(
            reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
        ) -> None:
            await reader.read()

        async with raw_server(silent) as url:
            assert await connect(url, pool, connect_seconds=0.1).models() == []
            await pool.close()

    async def test_of_openais_own_only_the_known_are_offered_in_our_order(
        self, http: Http
    ) -> None:
        data = [{"id": i} for i in ("gpt-4o", "whisper-1", "gpt-6.1-sol")]
        async with raw_server(_answering(_ok(json.dumps({"data": data})))) as url:
            provider = connect(url, http)
            provider._own = True
            names = [info.name for info in await provider.models()]

        assert names == ["openai/gpt-6.1-sol", "openai/gpt-4o"]

    async def test_without_address_and_key_it_is_not_set_up(self, http: Http) -> None:
        provider = connect("", http, openai_api_key=None)

        assert "OPENAI_BASE_URL" in str(provider.missing)
        assert await provider.models() == []
        result = await outcome(provider.stream(ask(MODEL)))
        assert type(result.error) is ProviderNotConfiguredError

    def test_a_key_alone_means_openai_itself(self, http: Http) -> None:
        provider = connect("", http)

        assert provider.missing is None
        assert provider._base == "https://api.openai.com/v1"
