from typing import Any

import pytest

from app.schemas.model import ModelRead
from app.services.gateway.fields import InvalidFieldError
from app.services.gateway.listing import (
    MOST,
    anthropic_list,
    anthropic_model,
    openai_list,
    openai_model,
)


def model(name: str) -> ModelRead:
    return ModelRead(
        name=name,
        provider="openai",
        capabilities=["text"],
        context_window=1000,
        max_output_tokens=100,
        dimensions=None,
        prices=None,
        available=True,
    )


MODELS = [model(f"openai/{name}") for name in "abcde"]


def test_openai_s_form() -> None:
    assert openai_list(MODELS[:1]) == {
        "object": "list",
        "data": [
            {
                "id": "openai/a",
                "object": "model",
                "created": 0,
                "owned_by": "openai",
            }
        ],
    }
    assert openai_list([]) == {"object": "list", "data": []}
    assert openai_model(MODELS[0]) == openai_list(MODELS)["data"][0]


def test_anthropic_s_form() -> None:
    assert anthropic_list(MODELS[:1], {}) == {
        "data": [
            {
                "type": "model",
                "id": "openai/a",
                "display_name": "openai/a",
                "created_at": "1970-01-01T00:00:00Z",
                "lifecycle": "active",
                "max_input_tokens": 1000,
                "max_tokens": 100,
            }
        ],
        "has_more": False,
        "first_id": "openai/a",
        "last_id": "openai/a",
    }
    assert anthropic_model(MODELS[0]) == anthropic_list(MODELS, {})["data"][0]


@pytest.mark.parametrize(
    ("query", "page", "more"),
    [
        ({}, "abcde", False),
        ({"limit": "2"}, "ab", True),
        ({"limit": "5"}, "abcde", False),
        ({"limit": "2", "after_id": "openai/b"}, "cd", True),
        ({"limit": "2", "after_id": "openai/c"}, "de", False),
        ({"after_id": "openai/e"}, "", False),
        ({"limit": "2", "before_id": "openai/d"}, "bc", True),
        ({"limit": "2", "before_id": "openai/c"}, "ab", False),
        ({"before_id": "openai/a"}, "", False),
        ({"after_id": "openai/a", "before_id": "openai/e", "limit": "2"}, "bc", True),
        ({"after_id": "openai/a", "before_id": "openai/e"}, "bcd", False),
        ({"after_id": "openai/d", "before_id": "openai/b"}, "", False),
    ],
)
def test_a_page_of_anthropic_s(query: dict[str, str], page: str, *, more: bool) -> None:
    told = anthropic_list(MODELS, query)

    names = [f"openai/{name}" for name in page]
    assert [one["id"] for one in told["data"]] == names
    assert told["has_more"] is more
    assert (told["first_id"], told["last_id"]) == (
        (names[0], names[-1]) if names else (None, None)
    )


def test_pages_of_anthropic_s_show_every_model_once() -> None:
    seen: list[Any] = []
    query = {"limit": "2"}
    while True:
        told = anthropic_list(MODELS, query)
        seen += told["data"]
        if not told["has_more"]:
            break
        query["after_id"] = told["last_id"]

    assert [one["id"] for one in seen] == [one.name for one in MODELS]


def test_twenty_are_a_page_unless_asked_otherwise() -> None:
    many = [model(f"openai/{number}") for number in range(25)]

    assert len(anthropic_list(many, {})["data"]) == 20
    assert len(anthropic_list(many, {"limit": str(MOST)})["data"]) == 25


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "-1"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "1" * 5000}, "limit"),
        ({"limit": "²"}, "limit"),
        ({"limit": ""}, "limit"),
        ({"after_id": "openai/x"}, "after_id"),
        ({"before_id": ""}, "before_id"),
    ],
)
def test_what_is_wrong_is_named(query: dict[str, str], path: str) -> None:
    with pytest.raises(InvalidFieldError) as caught:
        anthropic_list(MODELS, query)

    assert caught.value.errors[0]["path"] == path
