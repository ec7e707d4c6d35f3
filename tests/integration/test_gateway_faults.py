"""Streams of the gateway, and TRUST F3: every fault, by every provider, in each API.

What strikes after the first token ends the stream with the format's own error; what
strikes before is an answer that says so by its status.
"""

from dataclasses import dataclass
from typing import Any

import anthropic
import openai
import pytest
from sqlalchemy import func, select

from app.models import UsageDay
from tests.fakes.faults import Fault, numbered_words
from tests.integration.gateway import SCHEMA, Gateway
from tests.integration.wire import (
    APIS,
    PATHS,
    Api,
    body,
    ends_well,
    error_of,
    text_of,
)

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.parametrize("api", APIS),
]

TOOLS: dict[Api, Any] = {
    "chat": {
        "type": "function",
        "function": {"name": "get_weather", "parameters": SCHEMA},
    },
    "responses": {"type": "function", "name": "get_weather", "parameters": SCHEMA},
    "messages": {"name": "get_weather", "input_schema": SCHEMA},
}


async def stream(gateway: Gateway, api: Api, text: str, **fields: Any) -> bytes:
    asked = body(api, gateway.model, text, stream=True, **fields)
    async with gateway.with_key().stream("POST", PATHS[api], json=asked) as answer:
        return await answer.response.read()


@dataclass
class Booked:
    """What all calls by the gateway came to."""

    requests: int = 0
    estimated: int = 0
    output_tokens: int = 0

    @classmethod
    async def by(cls, gateway: Gateway) -> "Booked":
        runtime = gateway.server.runtime
        await runtime.credits.flush()
        names = cls.__dataclass_fields__
        sums = [func.coalesce(func.sum(getattr(UsageDay, n)), 0) for n in names]
        async with runtime.database.unit_of_work(read_only=True) as session:
            return cls(*map(int, (await session.execute(select(*sums))).one()))

    def __sub__(self, before: "Booked") -> "Booked":
        return Booked(
            self.requests - before.requests,
            self.estimated - before.estimated,
            self.output_tokens - before.output_tokens,
        )


@pytest.mark.parametrize("usage", [False, True])
async def test_a_stream_keeps_to_its_grammar(
    gateway: Gateway, api: Api, *, usage: bool
) -> None:
    asked = {"stream_options": {"include_usage": usage}} if api == "chat" else {}
    before = await Booked.by(gateway)

    raw = await stream(gateway, api, "Say 30 words", **asked)

    assert ends_well(api, raw, usage=usage)
    assert text_of(api, raw) == numbered_words(30)
    assert await Booked.by(gateway) - before == Booked(1, 0, 30)


async def test_a_stream_that_calls_a_tool_keeps_to_its_grammar(
    gateway: Gateway, api: Api
) -> None:
    plan = gateway.fake.plan
    plan.tool, plan.tool_input = "get_weather", '{"city": "Bath", "days": 3}'

    raw = await stream(gateway, api, "Say 3 words", tools=[TOOLS[api]])

    assert ends_well(api, raw)
    assert b"get_weather" in raw


async def test_a_stream_with_thinking_keeps_to_its_grammar(
    gateway: Gateway, api: Api
) -> None:
    gateway.fake.plan.thinking = "Hm, 3 words."

    raw = await stream(gateway, api, "Say 3 words")

    assert ends_well(api, raw)
    assert b"Hm, 3 words." in raw
    assert text_of(api, raw) == numbered_words(3)


FAULTS: dict[Fault, int] = {
    "midstream_exception": 5,
    "cut": 5,
    "stall": 5,
    "missing_end": 30,
}
"""How many words come before each."""


@pytest.mark.parametrize("fault", FAULTS)
async def test_a_fault_in_mid_stream_ends_it_with_an_error(
    gateway: Gateway, api: Api, fault: Fault
) -> None:
    """TRUST F3, M2: and it is booked once, by our estimate."""
    gateway.fake.plan.faults = [fault]
    before = await Booked.by(gateway)

    raw = await stream(gateway, api, "Say 30 words")

    assert not ends_well(api, raw)
    assert text_of(api, raw).split() == numbered_words(FAULTS[fault]).split()
    booked = await Booked.by(gateway) - before
    assert (booked.requests, booked.estimated) == (1, 1)
    assert FAULTS[fault] <= booked.output_tokens <= FAULTS[fault] * 4
    assert len(gateway.fake.calls) == 1  # after the first token nothing is tried again


async def test_a_damaged_answer_has_no_clean_end(gateway: Gateway, api: Api) -> None:
    """TRUST F3: where bytes go through as they come, damaged ones do, too."""
    gateway.fake.plan.faults = ["bad_crc"]

    raw = await stream(gateway, api, "Say 30 words")

    if gateway.passes(api) and gateway.provider != "bedrock":  # whose frames we check
        *events, damaged, error = raw.split(b"\n\n")[:-1]
        assert not damaged.endswith(b"}")
        raw = b"\n\n".join([*events, error, b""])
    assert not ends_well(api, raw)
    assert text_of(api, raw).split() == numbered_words(5).split()


async def test_the_client_hears_of_a_fault_in_mid_stream(
    gateway: Gateway, api: Api
) -> None:
    """TRUST F3."""
    gateway.fake.plan.faults = ["cut"]
    messages: Any = [{"role": "user", "content": "Say 30 words"}]
    model, told = gateway.model, "The model's answer broke off."
    if api == "messages":
        async with gateway.anthropic() as client:
            with pytest.raises(anthropic.APIStatusError, match=told):
                async with client.messages.stream(
                    model=model, max_tokens=100, messages=messages
                ) as answer:
                    await answer.get_final_message()
        return
    async with gateway.openai() as openai_client:
        if api == "responses":
            events = await openai_client.responses.create(
                model=model, input="Say 30 words", stream=True
            )
            last = [event async for event in events][-1]
            assert last.type == "response.failed"
            assert last.response.error is not None
            assert last.response.error.message == told
            return
        chunks = await openai_client.chat.completions.create(
            model=model, messages=messages, stream=True
        )
        with pytest.raises(openai.APIError, match=told):
            [chunk async for chunk in chunks]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize(
    ("fault", "status"),
    [
        ("throttle_first", 503),
        ("unavailable", 503),
        ("midstream_exception", 503),
        ("bad_crc", 502),
        ("cut", 502),
        ("stall", 504),
    ],
)
async def test_a_fault_before_the_first_token_is_an_error_of_the_call(
    gateway: Gateway, api: Api, fault: Fault, status: int, *, streamed: bool
) -> None:
    """TRUST F3."""
    gateway.fake.plan.update({"faults": [fault] * 9, "at_chunk": 0})
    asked = body(api, gateway.model, "Say 30 words", stream=streamed)

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert answer.status == status
    error = error_of(api, answer.json)
    kinds = {503: "overloaded_error", 504: "timeout_error"}
    expected = kinds.get(status, "api_error") if api == "messages" else "server_error"
    assert error["type"] == expected


@pytest.mark.parametrize(
    "fault", ["midstream_exception", "bad_crc", "cut", "missing_end"]
)
async def test_a_whole_answer_that_breaks_off_is_an_error(
    gateway: Gateway, api: Api, fault: Fault
) -> None:
    """TRUST F3, M2: what the provider did is booked, and once.

    Of what passes we know that it has done nothing where it says so.
    """
    gateway.fake.plan.faults = [fault] * 9
    before = await Booked.by(gateway)
    asked = body(api, gateway.model, "Say 30 words")

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    assert answer.status in {502, 503, 504}
    error_of(api, answer.json)
    booked = await Booked.by(gateway) - before
    nothing = gateway.passes(api) and fault == "midstream_exception"
    assert booked.requests == booked.estimated == (0 if nothing else 1)


SECRET = "sk-ant-9f8e7d at gpu-7.internal:8443, account 123456789012"


@pytest.mark.parametrize(
    "fault", ["throttle_first", "unavailable", "midstream_exception"]
)
@pytest.mark.parametrize("streamed", [True, False])
async def test_what_a_provider_says_of_itself_is_not_handed_on(
    gateway: Gateway, api: Api, fault: Fault, *, streamed: bool
) -> None:
    plan = gateway.fake.plan
    plan.update({"faults": [fault] * 9, "words_of_error": SECRET})
    asked = body(api, gateway.model, "Say 30 words", stream=streamed)

    answer = await gateway.with_key().post(PATHS[api], json=asked)

    host = gateway.fake.url.rpartition(":")[2].encode()
    for word in [*SECRET.replace(",", "").encode().split()[::2], host, b"127.0.0.1"]:
        assert word not in answer.body
        assert word.decode() not in str(answer.headers).replace("Host", "")
