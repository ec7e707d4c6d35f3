"""Anthropic's own API against a fake server."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from app.core.config import ModelSettings
from app.integrations.llm.anthropic import AnthropicProvider
from app.integrations.llm.base import (
    ChatRequest,
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
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from app.integrations.llm.messages_api import GO_ON
from tests.fakes.anthropic import API_KEY, FakeAnthropic
from tests.fakes.faults import Fault, numbered_words
from tests.unit.integrations.llm.calls import ask, assistant, outcome, text, user
from tests.unit.integrations.llm.conftest import raw_server

OPUS = "claude-opus-5"  # refuses a prefill
HAIKU = "claude-haiku-4-5"  # takes one
CATALOGUE = Catalogue.load()
MARK = {"cache_control": {"type": "ephemeral"}}


@pytest.fixture
async def server() -> AsyncIterator[FakeAnthropic]:
    async with FakeAnthropic() as running:
        yield running


@pytest.fixture
def provider(server: FakeAnthropic, http: Http) -> AnthropicProvider:
    return connect(server.url, http)


def connect(url: str, http: Http, **settings: Any) -> AnthropicProvider:
    values = {"anthropic_base_url": url, "anthropic_api_key": API_KEY, **settings}
    return AnthropicProvider(ModelSettings(**values), CATALOGUE, http)


async def test_a_whole_answer(
    server: FakeAnthropic, provider: AnthropicProvider
) -> None:
    result = await outcome(provider.stream(ask(OPUS, user("Hi"), system="Be brief.")))

    assert result.error is None
    assert result.text == numbered_words(100)
    assert result.events[0] == Usage(25, 1)
    assert result.events[-2:] == [Usage(25, 100), Stop("end_turn")]
    assert server.calls[0].body == {
        "model": OPUS,
        "max_tokens": 4096,
        "messages": [{"role": "user", "content": [text("Hi")]}],
        "system": [text("Be brief.") | MARK],
        "stream": True,
    }


async def test_thinking_text_and_a_call_of_a_tool(
    server: FakeAnthropic, provider: AnthropicProvider
) -> None:
    given = '{"city": "Zürich", "days": 2}'
    server.plan.update({"text": "Grüße 😀", "thinking": "Hm"})
    server.plan.update({"tool": "weather", "tool_input": given})
    tool = {"name": "weather", "input_schema": {"type": "object"}}

    result = await outcome(provider.stream(replace(ask(OPUS), tools=[tool])))

    assert result.text == "Grüße 😀"
    assert result.thinking == "Hm"
    assert ThinkingDelta("", "c2lnbmVk") in result.events
    assert ToolUseStart("toolu_1", "weather") in result.events
    pieces = [e.json for e in result.events if isinstance(e, ToolInputDelta)]
    assert "".join(pieces) == given
    assert result.events[-1] == Stop("tool_use")
    assert server.calls[0].body["tools"] == [tool | MARK]


@pytest.mark.parametrize("model", [HAIKU, OPUS])
@pytest.mark.parametrize("length", [0, 1, 5, 6, 300, 598])
async def test_a_continued_text_has_every_byte_once(
    server: FakeAnthropic, provider: AnthropicProvider, model: str, length: int
) -> None:
    given = numbered_words(100)[:length]

    result = await outcome(provider.stream(ask(model, user("Hi"), assistant(given))))

    assert result.error is None
    assert given + result.text == numbered_words(100)
    asked_to_go_on = GO_ON in str(server.calls[0].body["messages"][-1])
    assert asked_to_go_on == (model == OPUS and length > 0)


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
        server: FakeAnthropic,
        provider: AnthropicProvider,
        fault: Fault,
        error: type[ProviderError],
        words: int,
    ) -> None:
        server.plan.faults = [fault]

        result = await outcome(provider.stream(ask(OPUS)))

        assert type(result.error) is error
        assert result.text.split() == numbered_words(words).split()
        assert bool(result.usages) == bool(words)
        assert not any(isinstance(event, Stop) for event in result.events)
        assert (await outcome(provider.stream(ask(OPUS)))).error is None

    async def test_a_refusal_tells_how_long_to_wait(
        self, server: FakeAnthropic, provider: AnthropicProvider
    ) -> None:
        server.plan.update({"faults": ["throttle_first"], "retry_after": "7"})

        result = await outcome(provider.stream(ask(OPUS)))

        assert result.error is not None
        assert result.error.retry_after == 7

    async def test_leaving_ends_the_call_at_the_server(
        self, server: FakeAnthropic, provider: AnthropicProvider
    ) -> None:
        server.plan.faults = ["stall"]

        async with aclosing(provider.stream(ask(OPUS))) as events:  # type: ignore[type-var]  # it is an async generator
            async for event in events:
                if isinstance(event, TextDelta):
                    break

        await asyncio.wait_for(server.calls[0].ended.wait(), 5)
        assert server.calls[0].outcome == "dropped"

    async def test_a_finished_call_leaves_its_connection_to_the_next(
        self, server: FakeAnthropic, provider: AnthropicProvider
    ) -> None:
        for _ in range(3):
            await outcome(provider.stream(ask(OPUS)))

        assert len({call.peer for call in server.calls}) == 1

    async def test_a_wrong_key(self, server: FakeAnthropic, http: Http) -> None:
        wrong = connect(server.url, http, anthropic_api_key="sk-wrong")

        result = await outcome(wrong.stream(ask(OPUS)))

        assert type(result.error) is ProviderAuthError
        assert await wrong.models() == []

    async def test_a_model_that_there_is_not(self, provider: AnthropicProvider) -> None:
        result = await outcome(provider.stream(ask("nonsense")))

        assert type(result.error) is ProviderRejectedError

    @pytest.mark.parametrize(
        ("status", "body", "error"),
        [
            (400, {"type": "rate_limit_error"}, ProviderThrottledError),
            (529, {"type": "overloaded_error"}, ProviderUnavailableError),
            (429, {"type": "from_the_future"}, ProviderThrottledError),
            (413, {"type": "request_too_large"}, ProviderRejectedError),
            (402, {"type": "billing_error"}, ProviderAuthError),
            (502, None, ProviderUnavailableError),
        ],
    )
    async def test_the_type_goes_before_the_status(
        self, http: Http, status: int, body: Any, error: type[ProviderError]
    ) -> None:
        told = json.dumps({"type": "error", "error": body} if body else "<html>")
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(told)}\r\n\r\n"

        async def refuse(
            reader: asyncio.StreamReader, writer: asyncio.StreamWriter
        ) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write((head + told).encode())
            await writer.drain()
            writer.write_eof()
            await reader.read()

        async with raw_server(refuse) as url:
            result = await outcome(connect(url, http).stream(ask(OPUS)))

        assert type(result.error) is error


class TestCaching:
    """What Anthropic caches is looked up by the bytes before a mark."""

    async def bodies(
        self, server: FakeAnthropic, provider: AnthropicProvider, turns: int
    ) -> list[Any]:
        """What is sent in each turn of one chat."""
        messages = [user("Question 1")]
        for turn in range(turns):
            request = ChatRequest(OPUS, messages, "Be brief.")
            reply = (await outcome(provider.stream(request))).text
            messages += [assistant(reply), user(f"Question {turn + 2}")]
        return [call.body for call in server.calls]

    async def test_the_marks_end_what_no_later_turn_changes(
        self, server: FakeAnthropic, provider: AnthropicProvider
    ) -> None:
        first, *later = await self.bodies(server, provider, 3)

        assert first["system"][-1]["cache_control"] == {"type": "ephemeral"}
        assert "cache_control" not in str(first["messages"])
        for body in later:
            marked = [
                number
                for number, message in enumerate(body["messages"])
                if "cache_control" in message["content"][-1]
            ]
            assert marked == [len(body["messages"]) - 3]

    async def test_but_for_the_marks_a_turn_begins_as_the_one_before(
        self, server: FakeAnthropic, provider: AnthropicProvider
    ) -> None:
        bodies = await self.bodies(server, provider, 4)
        plain = [
            json.dumps([body["system"], body["messages"]]).replace(
                ', "cache_control": {"type": "ephemeral"}', ""
            )
            for body in bodies
        ]

        for before, after in pairwise(plain):
            assert after.startswith(before.removesuffix("]]"))


class TestModels:
    async def test_they_are_the_listed_the_known_ones_first(
        self, server: FakeAnthropic, provider: AnthropicProvider
    ) -> None:
        lists = await asyncio.gather(*(provider.models() for _ in range(3)))

        opus, haiku, new = lists[0]
        assert opus == CATALOGUE.info("anthropic/claude-opus-5")
        assert haiku.prices == CATALOGUE.info("anthropic/claude-haiku-4-5").prices
        assert (new.id, new.context_window) == ("claude-next-9", 500_000)
        assert "vision" in new.capabilities
        assert "documents" not in new.capabilities
        assert server.times_listed == 1

    async def test_the_named_ones_go_before_the_listed(
        self, server: FakeAnthropic, http: Http
    ) -> None:
        provider = connect(server.url, http, anthropic_models=(OPUS, "own"))

        assert [m.id for m in await provider.models()] == [OPUS, "own"]
        assert server.times_listed == 0

    async def test_without_a_key_it_is_not_set_up(self, http: Http) -> None:
        provider = connect("", http, anthropic_api_key=None)

        assert "ANTHROPIC_API_KEY" in str(provider.missing)
        assert await provider.models() == []
        result = await outcome(provider.stream(ask(OPUS)))
        assert type(result.error) is ProviderNotConfiguredError

    @pytest.mark.parametrize("url", ["", "http://proxy/", "http://proxy/v1"])
    def test_the_address_may_have_its_version(self, http: Http, url: str) -> None:
        expected = "http://proxy" if url else "https://api.anthropic.com"

        assert connect(url, http)._base == expected
