"""F10: whatever is sent, the answer is one that the description of the API allows.

A small generator of our own over `openapi.json`: right and wrong shapes, odd strings,
huge numbers, wrong types, in bodies, paths, queries and headers.
"""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from yarl import URL

from app.core.config import ROOT
from tests.client import Answer, Client
from tests.conftest import Server
from tests.integration.operations import make_things

API: dict[str, Any] = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
DOCUMENTED_503 = {"provider_not_configured", "provider_unavailable", "overloaded"}
EXAMPLES = 150  # on each database

HALF = "\ud800"
"""Half of a surrogate pair: JSON can write it, but it is no text."""

ODD_TEXTS = (
    "", " ", "\0", "a\0b", HALF, f"a{HALF}b", "\udfff\ud800", "😀" * 60, "\u202e\ufeff",
    "İ" * 64, "a" * 201, "a" * 100_001, "%00", "%", "' OR 1=1 --", "<script>", "../..",
    "{}", "null", "0", "-1", "1e999", "\r\nX: y", "\x1b[2J", "\N{MATHEMATICAL BOLD CAPITAL A}",
    "guide/manual", "openai/gpt", "bedrock/x", "@example.com", "a@b", "a@b.example",
)  # fmt: skip
OWN_THINGS = ("@chat", "@question", "@reply", "@session_of_nobody")
"""Stand for ids that are known only when the server runs."""


# What is sent


texts = st.sampled_from(ODD_TEXTS) | st.text(
    st.characters(exclude_categories=()), max_size=20
)
numbers = st.one_of(
    st.integers(-2, 200),
    st.sampled_from([2**31, 2**63, 2**64, -(2**63) - 1, 10**400, 1.5, -0.0, 1e308]),
    st.floats(),
)
anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=6,
)
uuids = st.sampled_from(OWN_THINGS) | st.uuids().map(str)


def right(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, as far as it is read here."""
    if "$ref" in schema:
        return right(API["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if "anyOf" in schema:
        return st.one_of([right(option) for option in schema["anyOf"]])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    match schema.get("type"):
        case "object":
            return _objects(schema)
        case "array":
            return st.lists(right(schema["items"]), max_size=3)
        case "integer":
            return st.integers(schema.get("minimum", 0), schema.get("maximum", 100))
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string" if schema.get("format") == "uuid":
            return uuids
        case _:
            return texts | st.text("abc d", min_size=8, max_size=20)


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    fields = {
        name: mostly_right(inner)
        for name, inner in schema.get("properties", {}).items()
    }
    required = {n: fields.pop(n) for n in schema.get("required", []) if n in fields}
    return st.fixed_dictionaries(required, optional=fields)


def mostly_right(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    good = right(schema)
    return st.one_of(good, good, good, anything)


@dataclass(frozen=True)
class Sent:
    """One request; `@name` in it stands for the id of that thing."""

    name: str
    """Of the operation."""
    responses: frozenset[str]
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    options: dict[str, Any] = field(default_factory=dict)


@st.composite
def requests(draw: st.DrawFn) -> Sent:
    path, method = draw(st.sampled_from(_NAMES))
    operation = API["paths"][path][method]
    query: dict[str, str] = {}
    headers = {"Authorization": draw(_AUTHORIZATIONS)}
    address = path
    for parameter in operation.get("parameters", []):
        name, place = parameter["name"], parameter["in"]
        value = draw(mostly_right(parameter["schema"]))
        if place == "path":
            address = address.replace(f"{{{name}}}", _in_url(value))
        elif place == "query" and draw(st.booleans()):
            query[name] = _in_url(value)
        elif place == "header" and draw(st.booleans()):
            headers[name] = draw(_HEADER_VALUES)
    return Sent(
        name=f"{method.upper()} {path}",
        responses=frozenset(operation["responses"]),
        path=address,
        query=query,
        headers=headers,
        options=draw(_bodies(operation.get("requestBody"))),
    )


@st.composite
def _bodies(draw: st.DrawFn, described: dict[str, Any] | None) -> dict[str, Any]:
    if described is None:
        return {}
    ((kind, content),) = described["content"].items()
    value = draw(mostly_right(content["schema"]))
    if kind == "application/json":
        text = draw(st.just(json.dumps(value)) | st.sampled_from(["", "{", "[" * 9999]))
    elif isinstance(value, dict):
        text = "&".join(f"{_in_url(k)}={_in_url(v)}" for k, v in value.items())
    else:
        text = _in_url(value)
    other = st.sampled_from(
        [kind, kind, kind, kind, "text/plain", "multipart/form-data"]
    )
    return {"data": text.encode(), "headers": {"Content-Type": draw(other)}}


def _in_url(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    # Percent-encoded even where it is no UTF-8; @ stays, for ids to be put in.
    return quote(text.encode("utf-8", "surrogatepass"), safe="@")


_NAMES = [(path, m) for path, methods in API["paths"].items() for m in methods]
_TOKENS = ("Bearer @token",) * 12
_AUTHORIZATIONS = st.sampled_from(
    [
        *_TOKENS,
        "",
        "Bearer",
        "Bearer x",
        "Bearer a.b.c",
        "Basic eDp5",
        "Bearer \xe9\xff",
    ]
)
_HEADER_VALUES = st.sampled_from(
    [
        "0.0.0.0",
        "0.0.3.0",
        "7.0.0.0",
        "0.0.0.0.end",
        "9.9.9.9",
        "9" * 90,
        "\xb2.0.0.0",
        "x",
    ]
) | st.text(st.characters(min_codepoint=33, max_codepoint=255), max_size=20)


# What comes back


@dataclass(frozen=True)
class Target:
    client: Client
    known: dict[str, str]

    async def answer(self, sent: Sent) -> Answer:
        query = "&".join(f"{name}={value}" for name, value in sent.query.items())
        url = URL(
            f"{self.client.url}{self._filled(sent.path)}?{self._filled(query)}",
            encoded=True,
        )
        options = dict(sent.options)
        headers = sent.headers | options.pop("headers", {})
        if "data" in options:
            options["data"] = self._filled(options["data"].decode()).encode()
        async with self.client._session.request(
            sent.name.split()[0],
            url,
            headers={k: self._filled(v) for k, v in headers.items()},
            allow_redirects=False,
            **options,
        ) as response:
            return Answer(response.status, response.headers, await response.read())

    def _filled(self, text: str) -> str:
        for name, value in self.known.items():
            text = text.replace(name, value)
        return text


@pytest.fixture
async def target(server: Server) -> AsyncIterator[Target]:
    things = await make_things(server, "ada")
    yield Target(
        client=server.anonymous(),
        known={
            "@token": things.client.tokens["access_token"],
            "@chat": things.chat,
            "@question": things.question,
            "@reply": things.reply,
            "@session_of_nobody": str(UUID(int=1)),
        },
    )


@hypothesis_settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@given(sent=requests())
async def test_whatever_is_sent_the_answer_is_a_documented_one(
    target: Target, sent: Sent
) -> None:
    assert_documented(await target.answer(sent), sent.name, sent.responses)


def assert_documented(answer: Answer, name: str, responses: frozenset[str]) -> None:
    assert b"Traceback" not in answer.body
    if answer.status < 400:
        assert str(answer.status) in responses, (name, answer.status)
        return
    assert answer.headers["Content-Type"] == "application/problem+json", name
    problem = answer.json
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    documented = answer.status == 503 and problem["code"] in DOCUMENTED_503
    assert answer.status < 500 or documented, (name, answer.body)
