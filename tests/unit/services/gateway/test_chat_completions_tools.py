import pytest

from app.integrations.llm.base import ChatMessage
from tests.unit.services.gateway.chat_asks import (
    HI,
    WEATHER,
    Json,
    request,
    text,
    wrong,
)


def call(arguments: str = '{"city":"Rome"}', id_: str = "call_1") -> Json:
    function = {"name": "weather", "arguments": arguments}
    return {"id": id_, "type": "function", "function": function}


def test_calls_and_their_results_are_read() -> None:
    got = request(
        HI,
        {"role": "assistant", "content": "I look.", "tool_calls": [call()]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Sunny"},
    )

    use = {"type": "tool_use", "id": "call_1", "name": "weather"}
    assert got.messages[1:] == [
        ChatMessage("assistant", [text("I look."), {**use, "input": {"city": "Rome"}}]),
        ChatMessage(
            "user",
            [{"type": "tool_result", "tool_use_id": "call_1", "content": "Sunny"}],
        ),
    ]


def test_results_are_one_turn_with_what_is_said_next() -> None:
    got = request(
        HI,
        {"role": "assistant", "content": None, "tool_calls": [call(), call("", "b")]},
        {"role": "tool", "tool_call_id": "call_1", "content": ""},
        {"role": "tool", "tool_call_id": "b", "content": [text("Rain")]},
        HI,
    )

    assert [m.role for m in got.messages] == ["user", "assistant", "user"]
    assert got.messages[1].content[1]["input"] == {}
    assert got.messages[2].content == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": ""},
        {"type": "tool_result", "tool_use_id": "b", "content": [text("Rain")]},
        text("Hi"),
    ]


@pytest.mark.parametrize("arguments", ['{"city":', "[1]", "7", "null"])
def test_arguments_that_are_no_object_are_named(arguments: str) -> None:
    message = {"role": "assistant", "tool_calls": [call(), call(arguments)]}

    assert wrong(HI, message) == "messages.1.tool_calls.1.function.arguments"


def test_a_call_of_another_kind_is_named() -> None:
    custom = {"id": "1", "type": "custom", "custom": {"name": "x", "input": "y"}}

    path = wrong(HI, {"role": "assistant", "tool_calls": [custom]})

    assert path == "messages.1.tool_calls.0.type"


def test_an_answer_is_read_as_openai_s_sdk_sends_it_back() -> None:
    got = request(
        HI,
        {
            "role": "assistant",
            "content": None,
            "refusal": "I will not.",
            "annotations": [],
            "audio": None,
            "function_call": None,
            "reasoning_content": "Hm.",
            "parsed": None,
            "tool_calls": [
                {
                    **call(),
                    "index": 0,
                    "function": {**call()["function"], "parsed_arguments": {}},
                }
            ],
        },
        HI,
    )

    assert [block["type"] for block in got.messages[1].content] == ["text", "tool_use"]


def test_an_answer_in_parts_is_read() -> None:
    parts = [text("Well."), {"type": "refusal", "refusal": "No."}]

    got = request(HI, {"role": "assistant", "content": parts})

    assert got.messages[1].content == [text("Well."), text("No.")]


def test_an_answer_of_nothing_is_left_out() -> None:
    got = request(HI, {"role": "assistant", "content": ""}, HI)

    assert got.messages == [ChatMessage("user", [text("Hi"), text("Hi")])]


def test_tools_are_read() -> None:
    bare = {"type": "function", "function": {"name": "now", "strict": True}}

    got = request(tools=[WEATHER, bare])

    assert got.tools == [
        {
            "name": "weather",
            "description": "Tells the weather.",
            "input_schema": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
            },
        },
        {"name": "now", "input_schema": {"type": "object"}, "strict": True},
    ]


@pytest.mark.parametrize(
    ("tool", "path"),
    [
        ({"type": "custom", "custom": {"name": "x"}}, "type"),
        ({"function": {"name": "x"}}, "type"),
        ({"type": "function"}, "function"),
        ({"type": "function", "function": {}}, "function.name"),
        (
            {"type": "function", "function": {"name": "x", "parameters": []}},
            "function.parameters",
        ),
        ({"type": "function", "function": {"name": "x"}, "id": "1"}, "id"),
    ],
)
def test_a_tool_that_cannot_be_said_is_named(tool: Json, path: str) -> None:
    assert wrong(tools=[WEATHER, tool]) == f"tools.1.{path}"


NAMED = {"type": "function", "function": {"name": "weather"}}


@pytest.mark.parametrize(
    ("fields", "choice"),
    [
        ({}, None),
        ({"tool_choice": "auto"}, None),
        ({"tool_choice": "none"}, {"type": "none"}),
        ({"tool_choice": "required"}, {"type": "any"}),
        ({"tool_choice": NAMED}, {"type": "tool", "name": "weather"}),
        ({"parallel_tool_calls": True}, None),
        (
            {"parallel_tool_calls": False},
            {"type": "auto", "disable_parallel_tool_use": True},
        ),
        (
            {"parallel_tool_calls": False, "tool_choice": NAMED},
            {"type": "tool", "name": "weather", "disable_parallel_tool_use": True},
        ),
        ({"parallel_tool_calls": False, "tool_choice": "none"}, {"type": "none"}),
    ],
)
def test_choices_of_tools_are_read(fields: Json, choice: Json | None) -> None:
    assert request(tools=[WEATHER], **fields).tool_choice == choice


def test_a_choice_without_tools_is_none() -> None:
    got = request(tool_choice="none", parallel_tool_calls=False)

    assert got.tool_choice is None


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tool_choice": NAMED}, "tool_choice.function.name"),
        ({"tool_choice": "any", "tools": [WEATHER]}, "tool_choice"),
        (
            {"tool_choice": {"type": "allowed_tools"}, "tools": [WEATHER]},
            "tool_choice.type",
        ),
        (
            {"tool_choice": {"type": "function"}, "tools": [WEATHER]},
            "tool_choice.function",
        ),
        ({"parallel_tool_calls": "no"}, "parallel_tool_calls"),
    ],
)
def test_a_choice_that_cannot_be_made_is_named(fields: Json, path: str) -> None:
    assert wrong(**fields) == path
