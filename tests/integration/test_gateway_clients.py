"""Requests as other programs were seen to send them, by every provider."""

from collections.abc import Sequence
from typing import Any

import pytest

from tests.fakes.faults import numbered_words
from tests.integration.gateway import PIXEL, Gateway
from tests.integration.wire import PATHS, Api, ends_well, text_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

Json = dict[str, Any]

CACHED = {"cache_control": {"type": "ephemeral"}}
PATH: Json = {
    "type": "object",
    "required": ["path"],
    "properties": {"path": {"type": "string", "description": "Where it is."}},
}
BETAS = (
    "claude-code-20250219,interleaved-thinking-2025-05-14,"
    "thinking-token-count-2026-05-13,context-management-2025-06-27,"
    "prompt-caching-scope-2026-01-05,mid-conversation-system-2026-04-07,"
    "effort-2025-11-24"
)


def text(said: str) -> Json:
    return {"type": "text", "text": said}


async def stream(gateway: Gateway, api: Api, path: str = "", **options: Any) -> bytes:
    answer = await gateway.with_key().post(path or PATHS[api], **options)
    assert answer.status == 200, answer.body
    assert ends_well(api, answer.body, usage=api == "chat")
    return answer.body


class TestClaudeCode:
    def request(self, gateway: Gateway, turns: Sequence[Json] = ()) -> Json:
        reminder = "<system-reminder>It is Friday.</system-reminder>"
        question = text("Say 5 words")
        keep = {"type": "clear_thinking_20251015", "keep": "all"}
        return {
            "model": gateway.able_model,
            "max_tokens": 32_000,
            "stream": True,
            "thinking": {"type": "adaptive"},
            "output_config": {"effort": "high"},
            "context_management": {"edits": [keep]},
            "metadata": {"user_id": '{"device_id":"d","session_id":"s"}'},
            "system": [text("x-header: 1"), text("You write code.") | CACHED],
            "tools": self.tools(gateway),
            "messages": [
                {"role": "user", "content": [text(reminder), question | CACHED]},
                {"role": "system", "content": "Agents there are: none."},
                *turns,
            ],
        }

    def tools(self, gateway: Gateway) -> list[Json]:
        if gateway.provider == "ollama":  # its model that thinks calls none
            return []
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **PATH}
        return [{"name": "Read", "description": "Read.", "input_schema": schema}]

    async def test_its_first_request_is_answered(self, gateway: Gateway) -> None:
        asked = self.request(gateway)
        headers = {"anthropic-beta": BETAS, "anthropic-version": "2023-06-01"}

        raw = await stream(
            gateway, "messages", "/v1/messages?beta=true", json=asked, headers=headers
        )

        assert text_of("messages", raw)

    async def test_what_its_tool_told_goes_back(self, gateway: Gateway) -> None:
        tools = self.tools(gateway)
        call = {"type": "tool_use", "id": "toolu_1", "name": "Read", "input": {}}
        result = {"type": "tool_result", "tool_use_id": "toolu_1", "content": "x = 1"}
        turns = [
            {"role": "assistant", "content": [text("I read."), call]},
            {"role": "user", "content": [result | {"is_error": False} | CACHED]},
        ]
        asked = self.request(gateway, turns if tools else ())

        raw = await stream(
            gateway, "messages", json=asked, headers={"anthropic-beta": BETAS}
        )

        assert text_of("messages", raw)


async def test_continue_calls_its_tools(gateway: Gateway) -> None:
    function = {"name": "Read", "description": "Read a file.", "parameters": PATH}
    call = {"name": "Read", "arguments": '{"path":"a.py"}'}
    calls = [{"id": "call_1", "type": "function", "function": call}]
    messages = [
        {"role": "system", "content": "You are an agent."},
        {"role": "user", "content": "say hello"},
        {"role": "assistant", "content": "On it.", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "call_1", "content": "Say 5 words"},
    ]

    raw = await stream(
        gateway,
        "chat",
        json={
            "model": gateway.model,
            "messages": messages,
            "tools": [{"type": "function", "function": function}],
            "stream": True,
            "stream_options": {"include_usage": True},
        },
    )

    assert text_of("chat", raw)


class TestOpenWebUI:
    async def test_a_chat_with_an_image_and_settings(self, gateway: Gateway) -> None:
        url = f"data:image/png;base64,{PIXEL}"
        image = {"type": "image_url", "image_url": {"url": url}}
        thought = '<details type="reasoning">\n<summary>Thought</summary>\n</details>'
        messages = [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "What is this?"},
            {"role": "assistant", "content": f"{thought}\nA dot."},
            {"role": "user", "content": [text("Say 5 words"), image]},
        ]
        asked = {
            "model": gateway.able_model,
            "messages": messages,
            "stream": True,
            "stream_options": {"include_usage": True},
            "temperature": 0.7,
            "top_p": 0.9,
            "top_k": 40,
            "max_tokens": 2_000,
            "stop": ["ZZZ"],
        }

        raw = await stream(gateway, "chat", json=asked)

        assert text_of("chat", raw) == numbered_words(5)
        assert gateway.sent.get("options", gateway.sent)["top_k"] == 40

    async def test_its_title_is_one_whole_answer(self, gateway: Gateway) -> None:
        asked = {
            "model": gateway.model,
            "messages": [{"role": "user", "content": "### Task:\nSay 3 words"}],
            "stream": False,
            "max_tokens": 1000,
        }

        answer = await gateway.with_key().post(PATHS["chat"], json=asked)

        [choice] = answer.json["choices"]
        assert choice["message"]["content"] == numbered_words(3)

    async def test_responses_of_a_chat(self, gateway: Gateway) -> None:
        def item(role: str, kind: str, said: str) -> Json:
            content = [{"type": kind, "text": said}]
            return {"type": "message", "role": role, "content": content}

        asked = {
            "model": gateway.model,
            "stream": True,
            "temperature": 0.5,
            "instructions": "Be brief.",
            "max_output_tokens": 50,
            "input": [
                item("user", "input_text", "Hi"),
                item("assistant", "output_text", "Ho"),
                item("user", "input_text", "Say 5 words"),
            ],
        }

        raw = await stream(gateway, "responses", json=asked)

        assert text_of("responses", raw) == numbered_words(5)
