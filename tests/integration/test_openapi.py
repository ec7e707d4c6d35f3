"""The description of the API is committed, complete, and true."""

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from app.api.openapi import describe
from app.cli.openapi import document
from app.core.config import ROOT
from app.main import create_app
from tests.conftest import Server, SettingsFactory
from tests.integration.operations import (
    GUARDED,
    nameless,
    routes_of,
    send,
)

COMMITTED = ROOT / "openapi.json"
NOT_DESCRIBED = {
    "GET /",  # a page for people
    "GET /shared/{}",  # another
    "GET /verify-email",  # those that mailed links open
    "GET /reset-password",
    "GET /forgot-password",
    "GET /docs",
    "GET /docs/oauth2-redirect",
    "GET /redoc",
    "GET /openapi.json",
}

one_database = pytest.mark.parametrize("backend", ["sqlite"], indirect=True)


@cache
def described() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(COMMITTED.read_text(encoding="utf-8"))
    return found


def operations() -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in described()["paths"].items()
        for method, operation in methods.items()
    ]


def test_the_committed_description_is_todays() -> None:
    assert COMMITTED.read_text(encoding="utf-8") == document(), (
        "openapi.json is not what the app is: look at the difference, then run "
        "`.venv/bin/python -m app openapi > openapi.json`"
    )


@one_database
async def test_a_server_shows_the_same(server: Server) -> None:
    answer = await send(server.anonymous(), "GET", "/openapi.json")

    assert answer.json == described()


@one_database
def test_every_route_is_described(settings_with: SettingsFactory) -> None:
    names = {nameless(name) for name, _ in operations()}

    assert routes_of(create_app(settings_with())) - NOT_DESCRIBED == names


def test_operation_ids_are_unique_and_short() -> None:
    ids = [operation["operationId"] for _, operation in operations()]

    assert len(set(ids)) == len(ids)
    assert all(one.isidentifier() and len(one) < 40 for one in ids)


def test_every_operation_tells_what_it_is_and_how_it_fails() -> None:
    for name, operation in operations():
        responses = operation["responses"]
        told = responses["default"]["content"]
        if " /v1/" in name:  # in the format of the gateway's clients
            assert told == {"application/json": {"schema": {"type": "object"}}}, name
        else:
            problem = {"$ref": "#/components/schemas/Problem"}
            assert told == {"application/problem+json": {"schema": problem}}, name
        assert any(status.startswith(("2", "3")) for status in responses), name
        assert "422" not in responses, name
        assert operation["summary"], name
        assert len(operation["tags"]) == 1, name


def test_every_private_operation_declares_security_and_no_public_one_does() -> None:
    secured = {
        nameless(name) for name, operation in operations() if operation.get("security")
    }
    private = {nameless(operation.name) for operation in GUARDED}

    assert secured == private


def test_every_reference_leads_somewhere_and_every_schema_is_used() -> None:
    schemas = described()["components"]["schemas"]
    used = {ref.removeprefix("#/components/schemas/") for ref in _references()}

    assert used == schemas.keys()


def _references() -> Iterator[str]:
    left: list[Any] = [described()]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            left += node.values()
            if isinstance(ref := node.get("$ref"), str):
                yield ref
        elif isinstance(node, list):
            left += node


@one_database
async def test_an_error_is_what_the_description_says(server: Server) -> None:
    schema = described()["components"]["schemas"]["Problem"]
    client = server.anonymous()

    for answer in (
        await client.get("/auth/me"),
        await client.post("/auth/register", json={}),
        await client.get("/nothing"),
    ):
        assert set(schema["required"]) <= answer.json.keys()
        assert answer.json.keys() <= schema["properties"].keys()


@one_database
def test_the_description_is_made_once(settings_with: SettingsFactory) -> None:
    app = create_app(settings_with())

    assert describe(app) is describe(app)
