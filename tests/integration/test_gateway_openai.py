"""OpenAI's own client asks for chat completions, by every provider."""

import asyncio
from typing import Any

import pytest
from openai.types.chat import ChatCompletion, ChatCompletionToolParam

from tests.fakes.faults import numbered_words
from tests.integration.gateway import PDF, PIXEL, SCHEMA, Gateway, Weather

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOL: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of the next days.",
        "parameters": SCHEMA,
    },
}


def asked(text: str) -> list[Any]:
    return [{"role": "user", "content": text}]


async def test_a_chat_completion_comes_word_by_word(gateway: Gateway) -> None:
    async with gateway.openai() as client:
        stream = await client.chat.completions.create(
            model=gateway.model,
            messages=asked("Say 30 words"),
            stream=True,
            stream_options={"include_usage": True},
        )
        chunks = [chunk async for chunk in stream]

    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == numbered_words(30)
    assert chunks[-2].choices[0].finish_reason == "stop"
    usage = chunks[-1].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (25, 30)
    assert gateway.fake.calls[-1].outcome == "complete"


async def test_a_whole_chat_completion(gateway: Gateway) -> None:
    def ask() -> ChatCompletion:
        with gateway.sync_openai() as client:
            return client.chat.completions.create(
                model=gateway.model,
                messages=[
                    {"role": "system", "content": "You count."},
                    *asked("Say 5 words"),
                ],
            )

    answer = await asyncio.to_thread(ask)

    [choice] = answer.choices
    assert choice.message.content == numbered_words(5)
    assert choice.finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (25, 5)
    assert "You count." in str(gateway.sent)


async def test_a_tool_is_called_and_its_result_goes_back(gateway: Gateway) -> None:
    plan = gateway.fake.plan
    plan.text, plan.tool = "Let me see.", "get_weather"
    plan.tool_input = '{"city": "Bath", "days": 3}'
    messages = asked("What is the weather in Bath?")
    async with gateway.openai() as client:
        async with client.chat.completions.stream(
            model=gateway.model, messages=messages, tools=[TOOL]
        ) as stream:
            first = await stream.get_final_completion()
        message = first.choices[0].message
        assert first.choices[0].finish_reason == "tool_calls"
        assert message.tool_calls
        [call] = message.tool_calls
        plan.text, plan.tool = "It rains.", ""
        result = {"role": "tool", "tool_call_id": call.id, "content": "rain"}
        messages += [message, result]
        second = await client.chat.completions.create(
            model=gateway.model, messages=messages, tools=[TOOL]
        )

    assert call.function.name == "get_weather"
    assert Weather.model_validate_json(call.function.arguments) == Weather.of_bath()
    assert second.choices[0].message.content == "It rains."
    assert "rain" in str(gateway.sent["messages"][-1])


async def test_images_and_documents_reach_a_model_that_takes_them(
    gateway: Gateway,
) -> None:
    parts: list[Any] = [
        {"type": "text", "text": "Say 2 words"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}},
    ]
    if gateway.is_claude:
        file = {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF}"}
        parts.append({"type": "file", "file": file})
    async with gateway.openai() as client:
        answer = await client.chat.completions.create(
            model=gateway.able_model,
            messages=[{"role": "user", "content": parts}],
        )

    assert answer.choices[0].message.content == numbered_words(2)
    assert PIXEL in str(gateway.sent)
    assert (PDF in str(gateway.sent)) == gateway.is_claude


async def test_an_answer_fits_a_schema_that_the_client_makes(gateway: Gateway) -> None:
    gateway.fake.plan.text = '{"city": "Bath", "days": 3}'
    async with gateway.openai() as client:
        answer = await client.chat.completions.parse(
            model=gateway.model,
            messages=asked("The weather in Bath as JSON"),
            response_format=Weather,
        )
        await client.chat.completions.create(
            model=gateway.model,
            messages=asked("The weather in Bath as JSON"),
            response_format={"type": "json_object"},
        )

    assert answer.choices[0].message.parsed == Weather.of_bath()
    schemas = [str(call.body) for call in gateway.fake.calls]
    assert "'days'" in schemas[0]
    assert "json" in schemas[1].lower()


async def test_thinking_is_asked_for_and_told(gateway: Gateway) -> None:
    gateway.fake.plan.thinking = "Hm."
    async with gateway.openai() as client:
        stream = await client.chat.completions.create(
            model=gateway.able_model,
            messages=asked("Say 3 words"),
            reasoning_effort="high",
            stream=True,
        )
        deltas = [c.choices[0].delta async for c in stream]

    thoughts = [(d.model_extra or {}).get("reasoning_content") or "" for d in deltas]
    assert "".join(thoughts) == "Hm."
    assert "".join(d.content or "" for d in deltas) == numbered_words(3)
    sent = gateway.sent
    assert sent.get("reasoning_effort") or sent.get("thinking") or sent.get("think")
