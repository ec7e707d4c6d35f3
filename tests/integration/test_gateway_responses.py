"""OpenAI's own client asks for responses, by every provider: all are translated."""

import asyncio
from typing import Any

import pytest
from openai.types.responses import (
    FunctionToolParam,
    Response,
    ResponseFunctionToolCall,
    ResponseReasoningItem,
)

from tests.fakes.faults import numbered_words
from tests.integration.gateway import PDF, PIXEL, SCHEMA, Gateway, Weather

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOOL: FunctionToolParam = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of the next days.",
    "parameters": SCHEMA,
    "strict": False,
}


async def test_a_response_comes_word_by_word(gateway: Gateway) -> None:
    async with (
        gateway.openai() as client,
        client.responses.stream(model=gateway.model, input="Say 30 words") as stream,
    ):
        events = [event async for event in stream]
        answer = await stream.get_final_response()

    texts = [e.delta for e in events if e.type == "response.output_text.delta"]
    assert "".join(texts) == answer.output_text == numbered_words(30)
    assert answer.status == "completed"
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (25, 30)


async def test_a_whole_response(gateway: Gateway) -> None:
    def ask() -> Response:
        with gateway.sync_openai() as client:
            return client.responses.create(
                model=gateway.model, instructions="You count.", input="Say 5 words"
            )

    answer = await asyncio.to_thread(ask)

    assert answer.output_text == numbered_words(5)
    assert answer.model == gateway.model
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (25, 5)
    assert "You count." in str(gateway.sent)


async def test_a_function_is_called_and_its_output_goes_back(gateway: Gateway) -> None:
    plan = gateway.fake.plan
    plan.text, plan.tool = "Let me see.", "get_weather"
    plan.tool_input = '{"city": "Bath", "days": 3}'
    items: list[Any] = [{"role": "user", "content": "What is the weather in Bath?"}]
    async with gateway.openai() as client:
        async with client.responses.stream(
            model=gateway.model, input=items, tools=[TOOL]
        ) as stream:
            first = await stream.get_final_response()
        calls = [i for i in first.output if isinstance(i, ResponseFunctionToolCall)]
        plan.text, plan.tool = "It rains.", ""
        output = {"type": "function_call_output", "call_id": calls[0].call_id}
        items += [item.to_dict() for item in first.output]
        items.append({**output, "output": "rain"})
        second = await client.responses.create(
            model=gateway.model, input=items, tools=[TOOL]
        )

    assert [call.name for call in calls] == ["get_weather"]
    assert Weather.model_validate_json(calls[0].arguments) == Weather.of_bath()
    assert second.output_text == "It rains."
    assert "rain" in str(gateway.sent["messages"][-1])


async def test_images_and_documents_reach_a_model_that_takes_them(
    gateway: Gateway,
) -> None:
    image = f"data:image/png;base64,{PIXEL}"
    parts: list[Any] = [
        {"type": "input_text", "text": "Say 2 words"},
        {"type": "input_image", "image_url": image, "detail": "auto"},
    ]
    if gateway.is_claude:
        data = f"data:application/pdf;base64,{PDF}"
        parts.append({"type": "input_file", "filename": "a.pdf", "file_data": data})
    async with gateway.openai() as client:
        answer = await client.responses.create(
            model=gateway.able_model, input=[{"role": "user", "content": parts}]
        )

    assert answer.output_text == numbered_words(2)
    assert PIXEL in str(gateway.sent)
    assert (PDF in str(gateway.sent)) == gateway.is_claude


async def test_an_answer_fits_a_schema_that_the_client_makes(gateway: Gateway) -> None:
    gateway.fake.plan.text = '{"city": "Bath", "days": 3}'
    async with gateway.openai() as client:
        answer = await client.responses.parse(
            model=gateway.model, input="The weather as JSON", text_format=Weather
        )

    assert answer.output_parsed == Weather.of_bath()
    assert "'days'" in str(gateway.sent)


async def test_thinking_is_asked_for_told_and_taken_back(gateway: Gateway) -> None:
    gateway.fake.plan.thinking = "Hm."
    async with gateway.openai() as client:
        async with client.responses.stream(
            model=gateway.able_model,
            input="Say 3 words",
            reasoning={"effort": "high", "summary": "auto"},
        ) as stream:
            answer = await stream.get_final_response()
        sent = gateway.sent
        items: list[Any] = [{"role": "user", "content": "Say 3 words"}]
        items += [item.to_dict() for item in answer.output]
        items.append({"role": "user", "content": "Say 2 words"})
        again = await client.responses.create(model=gateway.able_model, input=items)

    thoughts = [i for i in answer.output if isinstance(i, ResponseReasoningItem)]
    assert [part.text for part in thoughts[0].summary] == ["Hm."]
    assert answer.output_text == numbered_words(3)
    assert sent.get("reasoning_effort") or sent.get("thinking") or sent.get("think")
    assert again.output_text == numbered_words(2)
    assert ("c2lnbmVk" in str(gateway.sent)) == gateway.is_claude  # its signature
