from typing import Any

import pytest
from conftest import active
from workroom_auth import ForbiddenError, Identity, LimitExceededError


def identity(**fields: Any) -> Identity:
    return Identity.from_introspection(active(**fields))


def test_who_is_logged_in_has_every_scope_and_a_key_its_own() -> None:
    key = identity(scope="ext:reports models")

    assert identity().has_scope("ext:anything")
    assert key.has_scope("ext:reports")
    assert not key.has_scope("ext:report")
    assert not identity(scope="").has_scope("ext:reports")


def test_every_scope_is_needed() -> None:
    key = identity(scope="ext:a")

    assert key.require("ext:a") is key
    with pytest.raises(ForbiddenError, match="ext:b"):
        key.require("ext:a", "ext:b")


def test_one_of_the_plans_is_needed() -> None:
    assert identity(plan="pro").require(plans=("pro", "team"))
    with pytest.raises(ForbiddenError, match="pro, team"):
        identity(plan="free").require(plans=("pro", "team"))


def test_something_must_be_left() -> None:
    limits = {
        "conversations": {"limit": 5, "used": 5, "remaining": 0},
        "credits": {"monthly": 100, "balance": 7},
        "requests_per_minute": 60,
    }
    some = identity(limits=limits)

    assert some.remaining("conversations") == 0
    assert some.remaining("credits") == 7
    some.require(left=("credits",))
    with pytest.raises(LimitExceededError) as caught:
        some.require(left=("credits", "conversations"))
    assert caught.value.status == 429


def test_null_is_no_limit() -> None:
    limits = {
        "conversations": {"limit": None, "used": 5, "remaining": None},
        "credits": {"monthly": None, "balance": 0},
    }
    free = identity(limits=limits)

    assert [free.remaining(n) for n in ("conversations", "credits", "x")] == [None] * 3
    free.require(left=("conversations", "credits"))
