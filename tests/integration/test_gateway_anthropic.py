"""Anthropic's own client in front of the gateway, by every provider."""

import asyncio
from typing import Any

import pytest
from anthropic.types import Message, TextBlock, ThinkingBlock, ToolParam, ToolUseBlock

from tests.fakes.faults import numbered_words
from tests.integration.gateway import PDF, PIXEL, SCHEMA, Gateway, Weather

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOL: ToolParam = {
    "name": "get_weather",
    "description": "The weather of the next days.",
    "input_schema": SCHEMA,
}


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


def text_of(message: Message) -> str:
    return "".join(b.text for b in message.content if isinstance(b, TextBlock))


async def test_a_message_comes_word_by_word(gateway: Gateway) -> None:
    async with (
        gateway.anthropic() as client,
        client.messages.stream(
            model=gateway.model, max_tokens=500, messages=asked("Say 30 words")
        ) as stream,
    ):
        texts = [text async for text in stream.text_stream]
        message = await stream.get_final_message()

    assert "".join(texts) == text_of(message) == numbered_words(30)
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (25, 30)


async def test_a_whole_message(gateway: Gateway) -> None:
    def ask() -> Message:
        with gateway.sync_anthropic() as client:
            return client.messages.create(
                model=gateway.model,
                max_tokens=500,
                system=[
                    {
                        "type": "text",
                        "text": "You count.",
                        "cache_control": {"type": "ephemeral"},
                    }
                ],
                messages=asked("Say 5 words"),
            )

    message = await asyncio.to_thread(ask)

    assert text_of(message) == numbered_words(5)
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (25, 5)
    assert "You count." in str(gateway.sent)
    assert ("cache_control" in str(gateway.sent)) == gateway.is_claude


async def test_a_tool_is_called_and_its_result_goes_back(gateway: Gateway) -> None:
    plan = gateway.fake.plan
    plan.text, plan.tool = "Let me see.", "get_weather"
    plan.tool_input = '{"city": "Bath", "days": 3}'
    messages = asked("What is the weather in Bath?")
    async with gateway.anthropic() as client:
        async with client.messages.stream(
            model=gateway.model, max_tokens=500, messages=messages, tools=[TOOL]
        ) as stream:
            first = await stream.get_final_message()
        calls = [block for block in first.content if isinstance(block, ToolUseBlock)]
        plan.text, plan.tool = "It rains.", ""
        result = {"type": "tool_result", "tool_use_id": calls[0].id, "content": "rain"}
        messages += [
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ]
        second = await client.messages.create(
            model=gateway.model, max_tokens=500, messages=messages, tools=[TOOL]
        )

    assert first.stop_reason == "tool_use"
    assert [call.name for call in calls] == ["get_weather"]
    assert Weather.model_validate(calls[0].input) == Weather.of_bath()
    assert text_of(second) == "It rains."
    assert "rain" in str(gateway.sent["messages"][-1])


async def test_images_and_documents_reach_a_model_that_takes_them(
    gateway: Gateway,
) -> None:
    image = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    plain = {"type": "text", "media_type": "text/plain", "data": "A plain document."}
    blocks: list[Any] = [
        {"type": "image", "source": image},
        {"type": "document", "source": plain, "title": "Notes"},
        {"type": "text", "text": "Say 2 words"},
    ]
    if gateway.is_claude:
        pdf = {"type": "base64", "media_type": "application/pdf", "data": PDF}
        blocks.insert(0, {"type": "document", "source": pdf})
    async with gateway.anthropic() as client:
        message = await client.messages.create(
            model=gateway.able_model,
            max_tokens=500,
            messages=[{"role": "user", "content": blocks}],
        )

    assert text_of(message) == numbered_words(2)
    assert PIXEL in str(gateway.sent)
    assert "A plain document." in str(gateway.sent)
    assert (PDF in str(gateway.sent)) == gateway.is_claude


async def test_an_answer_fits_a_schema_that_the_client_makes(gateway: Gateway) -> None:
    gateway.fake.plan.text = '{"city": "Bath", "days": 3}'
    async with gateway.anthropic() as client:
        message = await client.messages.parse(
            model=gateway.model,
            max_tokens=500,
            messages=asked("The weather as JSON"),
            output_format=Weather,
        )

    assert message.parsed_output == Weather.of_bath()
    assert "'days'" in str(gateway.sent)


async def test_thinking_is_asked_for_told_and_taken_back(gateway: Gateway) -> None:
    gateway.fake.plan.thinking = "Hm."
    async with gateway.anthropic() as client:
        async with client.messages.stream(
            model=gateway.able_model,
            max_tokens=500,
            messages=asked("Say 3 words"),
            thinking={"type": "adaptive"},
            output_config={"effort": "high"},
        ) as stream:
            message = await stream.get_final_message()
        sent = gateway.sent
        again = await client.messages.create(
            model=gateway.able_model,
            max_tokens=500,
            messages=[
                *asked("Say 3 words"),
                {"role": "assistant", "content": message.content},
                *asked("Say 2 words"),
            ],
        )

    thoughts = [b for b in message.content if isinstance(b, ThinkingBlock)]
    assert [block.thinking for block in thoughts] == ["Hm."]
    assert text_of(message) == numbered_words(3)
    assert sent.get("reasoning_effort") or sent.get("thinking") or sent.get("think")
    assert text_of(again) == numbered_words(2)
    assert ("c2lnbmVk" in str(gateway.sent)) == gateway.is_claude  # its signature
