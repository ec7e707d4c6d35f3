"""F10: whatever is sent, the answer is one that the description of the API allows.

A small generator of our own over `openapi.json`: right and wrong shapes, odd strings,
huge numbers, wrong types, in bodies, paths, queries and headers.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from yarl import URL

from app.core.config import ROOT
from tests.client import Answer, Client
from tests.conftest import Server
from tests.integration.operations import OPERATIONS, Operation, nameless
from tests.integration.things import make_things

API: dict[str, Any] = json.loads((ROOT / "openapi.json").read_text(encoding="utf-8"))
DOCUMENTED_503 = {"provider_not_configured", "provider_unavailable", "overloaded"}
EXAMPLES = 150  # on each database
JSON = {"Content-Type": "application/json"}


def mostly(
    usual: st.SearchStrategy[Any], rare: st.SearchStrategy[Any]
) -> st.SearchStrategy[Any]:
    return st.integers(0, 5).flatmap(lambda number: usual if number else rare)


HALF = "\ud800"
"""Half of a surrogate pair: JSON can write it, but it is no text."""

ODD_TEXTS = (
    "", " ", "\0", "a\0b", HALF, f"a{HALF}b", "\udfff\ud800", "😀" * 60, "\u202e\ufeff",
    "İ" * 64, "a" * 201, "@long", "%00", "%", "' OR 1=1 --", "<script>", "../..", "{}",
    "null", "0", "-1", "1e999", "\r\nX: y", "\x1b[2J", "openai/gpt", "bedrock/x",
    "@example.com", "a@b", "a@b.example",
)  # fmt: skip
GOOD_TEXTS = (
    "guide/manual", "new@example.com", "a long pass phrase", "ada", "What is a turn?",
)  # fmt: skip
NAMES_OF_THINGS = ("chat", "question", "reply", "project", "document", "member")
PLACEHOLDERS = tuple(f"@{name}" for name in NAMES_OF_THINGS)
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
    lambda one: st.lists(one, max_size=3) | st.dictionaries(texts, one, max_size=3),
    max_leaves=6,
)
uuids = mostly(st.sampled_from(PLACEHOLDERS), st.uuids().map(str))


def right(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that the schema allows, as far as it is read here."""
    if "$ref" in schema:
        return right(API["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]])
    if options := schema.get("anyOf", schema.get("oneOf")):
        return st.one_of([right(option) for option in options])
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    return _RIGHT[schema.get("type", "string")](schema)


def mostly_right(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    return mostly(right(schema), anything)


def _strings(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    if schema.get("format") == "uuid":
        return uuids
    return mostly(st.sampled_from(GOOD_TEXTS), texts)


def _objects(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    fields = {n: mostly_right(s) for n, s in schema.get("properties", {}).items()}
    required = {n: fields.pop(n) for n in schema.get("required", []) if n in fields}
    return st.fixed_dictionaries(required, optional=fields)


_RIGHT: dict[str, Callable[[dict[str, Any]], st.SearchStrategy[Any]]] = {
    "array": lambda schema: st.lists(right(schema["items"]), max_size=3),
    "boolean": lambda _: st.booleans(),
    "integer": lambda s: st.integers(s.get("minimum", 0), s.get("maximum", 100)),
    "null": lambda _: st.none(),
    "number": lambda s: st.floats(s.get("minimum", 0), s.get("maximum", 100)),
    "object": _objects,
    "string": _strings,
}


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
        if method == "delete" and value in PLACEHOLDERS:
            value = str(draw(st.uuids()))  # later requests need it
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
    broken = st.sampled_from(["", "{", "[" * 9999, '{"a": "\\ud800'])
    if kind == "application/json":
        text = draw(mostly(st.just(json.dumps(value)), broken))
    elif isinstance(value, dict):
        text = "&".join(f"{_in_url(k)}={_in_url(v)}" for k, v in value.items())
    else:
        text = _in_url(value)
    kinds = mostly(
        st.just(kind), st.sampled_from(["text/plain", "multipart/form-data"])
    )
    return {"data": text.encode(), "headers": {"Content-Type": draw(kinds)}}


def _in_url(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    text = text.replace("@long", "a" * 2000)  # the server itself refuses much more
    # Percent-encoded even where it is no UTF-8; @ stays, for ids to be put in.
    return quote(text.encode("utf-8", "surrogatepass"), safe="@")


_NAMES = [(path, m) for path, methods in API["paths"].items() for m in methods]
_AUTHORIZATIONS = mostly(
    st.just("Bearer @token"),
    st.sampled_from(
        ["", "Bearer", "Bearer x", "Bearer a.b.c", "Basic eDp5", "Bearer \xe9\xff"]
    ),
)
_POSITIONS = (
    "0.0.0.0", "0.0.3.0", "7.0.0.0", "0.0.0.0.end", "9.9.9.9", "9" * 90, "\xb2.0.0.0",
)  # fmt: skip
_HEADER_VALUES = st.sampled_from(_POSITIONS) | st.text(
    # The client itself sends no control characters.
    st.characters(min_codepoint=33, max_codepoint=255, exclude_characters="\x7f"),
    max_size=20,
)


# What comes back


class Target:
    """Sends what was drawn, with the placeholders filled in."""

    def __init__(self, client: Client, known: dict[str, str]) -> None:
        self.client = client
        self.known = known

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
async def target(server: Server) -> Target:
    things = await make_things(server, "ada")
    known = {f"@{name}": str(getattr(things, name)) for name in NAMES_OF_THINGS}
    token = things.client.tokens["access_token"]
    return Target(server.anonymous(), known | {"@token": token, "@long": "a" * 100_001})


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
    if " /v1/" in name:  # in the format of the gateway's clients
        assert answer.headers["Content-Type"] == "application/json", name
        assert {"type", "message"} <= answer.json["error"].keys()
        assert answer.status < 500, (name, answer.body)
        return
    assert answer.headers["Content-Type"] == "application/problem+json", name
    problem = answer.json
    assert {"type", "title", "status", "detail", "code"} <= problem.keys()
    assert problem["request_id"] == answer.headers["X-Request-ID"]
    documented = answer.status == 503 and problem["code"] in DOCUMENTED_503
    assert answer.status < 500 or documented, (name, answer.body)


# Text that no database or no encoding can hold


BAD_TEXTS = ("\0", "a\0b", HALF, f"a{HALF}b", "\udfff\ud800")
FINE_TEXTS = (
    "😀 é İ ß", "\x01\x1b[2J", "\u202e\u2028\ufeff", "\U0010fffe", "{}'\"\\%s$1",
)  # fmt: skip
ONLY_HASHED = {
    "password", "new_password", "current_password", "refresh_token", "otp",
}  # fmt: skip
"""May hold whatever can be encoded, NUL too."""


async def test_no_field_fails_on_text_that_cannot_be_stored(server: Server) -> None:
    tried = 0
    for number, operation in enumerate(OPERATIONS):
        if not (names := _text_fields(operation)):
            continue
        things = await make_things(server, f"user{number}")
        right_body = operation.build(things).get("json", {})
        for name in names if right_body else []:
            for bad in BAD_TEXTS:
                body = json.dumps({**right_body, name: bad})
                answer = await operation.send(
                    operation.proper(things), things, json=None, data=body, headers=JSON
                )
                fine = name in ONLY_HASHED and bad.isascii()
                allowed = {200, 201, 204, 401, 409, 422} if fine else {422}
                if operation.status >= 400:
                    allowed |= {operation.status}
                assert answer.status in allowed, (operation.name, name, bad)
                tried += 1
    assert tried >= 60


def _text_fields(operation: Operation) -> list[str]:
    (described,) = [
        methods[operation.method.lower()]
        for path, methods in API["paths"].items()
        if nameless(path) == nameless(operation.path)
    ] or [{}]  # pages for people are not described
    taken = described.get("requestBody", {"content": {}})["content"]
    if "application/json" not in taken:
        return []
    body = taken["application/json"]["schema"]
    # A body may be optional, or of several forms.
    ref = (body.get("anyOf") or body.get("oneOf") or [body])[0]["$ref"]
    schema = API["components"]["schemas"][ref.rsplit("/", 1)[1]]
    return [
        name
        for name, field_ in schema["properties"].items()
        if any(one.get("type") == "string" for one in field_.get("anyOf", [field_]))
    ]


async def test_all_other_text_comes_back_as_it_was_sent(server: Server) -> None:
    things = await make_things(server, "ada")
    client = things.client

    for fine in FINE_TEXTS:
        changed = {"title": fine, "system_prompt": fine}
        chat = await client.patch(f"/chats/{things.chat}", json=changed)
        named = await client.patch("/users/me", json={"full_name": fine})
        events = await client.ask(things.chat, fine)
        sent = await client.get(f"/messages/{events[0].data['user_message_id']}")

        assert (await client.get(f"/chats/{things.chat}")).json["title"] == fine
        assert chat.json["system_prompt"] == fine
        assert named.json["full_name"] == fine
        assert sent.json["text"] == fine
