"""F11 for the gateway: a 4xx in the client's format, and bounded memory."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.conftest import Fakes
from tests.e2e.processes import Server
from tests.e2e.test_hostile import MIB, MOST_GROWTH, memory, speak, status
from tests.integration.wire import APIS, PATHS, Api, body, error_of

pytestmark = [
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.parametrize("api", APIS),
]

MODEL = "openai/fake-small"
"""Whose server takes chat completions as they are."""
CLAUDE = "bedrock/anthropic.claude-sonnet-4-5-20250929-v1:0"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hostile(
    http: aiohttp.ClientSession,
    fakes: Fakes,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Server]:
    """A server that takes much, whose memory must not have grown by the end."""
    unmeasured = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
    settings = {"BODY_SECONDS": "1", **unmeasured}
    settings["MAX_GATEWAY_BODY_BYTES"] = str(16 * MIB)
    folder = tmp_path_factory.mktemp("hostile")
    server = Server(http, folder, **fakes.variables, **settings)
    await server.start()
    client = await server.client()
    key = await client.post("/apikeys", json={"name": "a script"})
    server.settings["KEY"] = key.json["key"]  # for the tests alone
    for api in APIS:  # what is made at first use is made now
        asked = body(api, MODEL, "Say 3 words")
        assert (await client.post(PATHS[api], json=asked)).status == 200
    before = memory(server)
    yield server
    assert (await client.get("/auth/me")).status == 200
    assert memory(server) - before < MOST_GROWTH
    await server.stop()
    assert server.complaints() == []


def head(
    server: Server, api: Api, length: int | str, *headers: str, key: str = ""
) -> bytes:
    lines = [
        f"POST {PATHS[api]} HTTP/1.1",
        "Host: a",
        f"Authorization: Bearer {key or server.settings['KEY']}",
        "Content-Type: application/json",
        "Connection: close",
        *([f"Content-Length: {length}"] if length != "" else []),
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode()


async def post(server: Server, api: Api, raw: bytes) -> tuple[int, dict[str, Any]]:
    return told(api, await speak(server, [head(server, api, len(raw)), raw]))


def told(api: Api, answer: bytes) -> tuple[int, dict[str, Any]]:
    """The status, and the error in the format of that API."""
    assert len(answer) < 10_000
    return status(answer), error_of(api, json.loads(answer.partition(b"\r\n\r\n")[2]))


def written(api: Api, **fields: Any) -> bytes:
    return json.dumps(body(api, MODEL, "Say 3 words") | fields).encode()


def listed(api: Api) -> str:
    return "input" if api == "responses" else "messages"


async def test_what_is_no_json(hostile: Server, api: Api) -> None:
    for raw in (
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b'"text"',
        b"null",
        written(api)[:-1] + b"\xff}",
        written(api).replace(b"Say", b"\xc3\x28"),
        written(api).replace(b"Say", rb"\ud800"),
        written(api)[:-1] + b', "temperature": NaN}',
    ):
        code, error = await post(hostile, api, raw)
        assert (code, error["type"]) == (400, "invalid_request_error"), raw[:60]


async def test_a_field_that_is_there_twice(hostile: Server, api: Api) -> None:
    """Who checks one of them and goes by the other could be tricked."""
    twins = [
        written(api)[:-1] + b', "model": "openai/fake-large"}',
        written(api).replace(b'"role"', b'"role": "system", "role"'),
    ]
    for raw, name in zip(twins, ("model", "role"), strict=True):
        code, error = await post(hostile, api, raw)
        assert code == 400
        assert name in error["message"]


async def test_numbers_that_nobody_has(hostile: Server, api: Api) -> None:
    limit = {
        "chat": "max_completion_tokens",
        "responses": "max_output_tokens",
        "messages": "max_tokens",
    }[api]
    for number in (b"-1", b"1.5", b"1e3", b"9" * 400, b"1e999", b"true"):
        raw = written(api, **{limit: "HERE"}).replace(b'"HERE"', number)
        code, error = await post(hostile, api, raw)
        assert code == 400, number
        assert limit in error["message"] or "JSON" in error["message"]


async def test_json_that_is_deep(hostile: Server, api: Api) -> None:
    """At any depth: parsers and writers of JSON have limits of their own."""
    for depth in (150, 250, 300, 900, 1100, 100_000):
        deep = "[" * depth + "]" * depth
        for name in ("metadata", "tools", "nonsense", listed(api)):
            raw = written(api, **{name: "HERE"}, model="guide/manual")
            raw = raw.replace(b'"HERE"', deep.encode())
            answer = await speak(hostile, [head(hostile, api, len(raw)), raw])
            assert status(answer) in {200, 400}, (depth, name, answer[:300])
            if status(answer) == 400:
                told(api, answer)


async def test_blocks_within_blocks(hostile: Server, api: Api) -> None:
    for depth in (100, 500, 5000):
        content: Any = '"x"'
        nested = '[{"type": "text", "content": ' * depth + content + "}]" * depth
        padded = {listed(api): [{"role": "user", "content": "HERE"}]}
        raw = written(api, **padded, user="x" * 70_000, model="guide/manual")
        code, error = await post(hostile, api, raw.replace(b'"HERE"', nested.encode()))
        assert code == 400, (depth, error)


async def test_arguments_that_are_deep(hostile: Server, api: Api) -> None:
    """Of calls of tools: they are JSON within JSON, read, and written again."""
    for depth in (100, 240, 260, 900, 100_000):
        arguments = '{"a": ' + "[" * depth + "]" * depth + "}"
        raw = written(api, model=CLAUDE, **called(api, arguments))
        if api == "messages":  # there they are part of the request itself
            raw = raw.replace(json.dumps(arguments).encode(), arguments.encode())
        answer = await speak(hostile, [head(hostile, api, len(raw)), raw])
        assert status(answer) == (200 if depth <= 240 else 400), depth


def called(api: Api, arguments: str) -> dict[str, Any]:
    """What tells of a call of a tool, and of its result."""
    question = {"role": "user", "content": "Look!"}
    function = {"name": "look", "arguments": arguments}
    if api == "chat":
        call = {"id": "call_1", "type": "function", "function": function}
        said = {"role": "assistant", "tool_calls": [call]}
        result = {"role": "tool", "tool_call_id": "call_1", "content": "Seen."}
        return {"messages": [question, said, result]}
    if api == "responses":
        item = {"type": "function_call", "call_id": "call_1", **function}
        output = {"type": "function_call_output", "call_id": "call_1"}
        return {"input": [question, item, {**output, "output": "Seen."}]}
    given = {"type": "tool_use", "id": "call_1", "name": "look", "input": arguments}
    block = {"type": "tool_result", "tool_use_id": "call_1", "content": "Seen."}
    said = {"role": "assistant", "content": [given]}
    return {"messages": [question, said, {"role": "user", "content": [block]}]}


async def test_ten_megabytes_and_more(hostile: Server, api: Api) -> None:
    async def answered(pieces: Iterable[bytes]) -> bytes:
        return (await speak(hostile, pieces))[:12]

    raw = written(api, user="x" * 17 * MIB)
    chunked = head(hostile, api, "", "Transfer-Encoding: chunked")
    parts = [b"%x\r\n%b\r\n" % (MIB, b" " * MIB)] * 18

    assert await answered([head(hostile, api, len(raw)), raw]) in {
        b"HTTP/1.1 413",
        b"",  # it may be gone before all is written
    }
    assert await answered([chunked, *parts]) in {b"HTTP/1.1 413", b""}
    # What a client may send is refused for what it says, at the same cost.
    spaces = written(api, model="openai/none") + b" " * 10 * MIB
    assert (await post(hostile, api, spaces))[0] == 404


async def test_a_hundred_thousand_messages(hostile: Server, api: Api) -> None:
    many = [{"role": "user", "content": "a"}] * 100_000

    code, error = await post(hostile, api, written(api, **{listed(api): many}))

    assert code == 400
    assert listed(api) in error["message"]


async def test_a_length_that_is_wrong(hostile: Server, api: Api) -> None:
    raw = written(api)
    short = await speak(hostile, [head(hostile, api, len(raw) - 10), raw])
    long = await speak(hostile, [head(hostile, api, len(raw) + 10), raw])

    assert told(api, short)[0] == 400
    assert told(api, long)[0] == 408
    for length in (-1, "many", "0x10", "1, 2"):
        answer = await speak(hostile, [head(hostile, api, length), raw])
        assert status(answer) == 400


async def test_bodies_that_come_slowly(hostile: Server, api: Api) -> None:
    slow = [head(hostile, api, 1000), *[b" "] * 900]

    answers = await asyncio.gather(
        *(speak(hostile, slow, pause=0.05) for _ in range(20))
    )

    for answer in answers:
        code, error = told(api, answer)
        assert code == 408
        assert error["type"] == "invalid_request_error"


async def test_keys_that_are_something_else(hostile: Server, api: Api) -> None:
    """TRUST K1."""
    raw = written(api)
    for key in ("'; DROP TABLE users; --", "wr_' OR 1=1", "x" * 5000, "%00"):
        answer = await speak(hostile, [head(hostile, api, len(raw), key=key), raw])
        code, error = told(api, answer)
        assert (code, error["type"]) == (401, "authentication_error")
        assert key not in answer.decode()
