import pytest

from app.core.config import ConfigError, load_settings
from app.core.rates import DEFAULT, LIMITED, Rate, complete, parse


def test_each_unit_and_many_of_it() -> None:
    text = "auth.login=1/second, auth.register = 2 / 15 minutes,chats.send=3/hours,"

    assert parse(text + "default=4/day") == {
        "auth.login": Rate(1, 1),
        "auth.register": Rate(2, 900),
        "chats.send": Rate(3, 3600),
        "default": Rate(4, 86400),
    }


def test_the_defaults_limit_what_strangers_may_try() -> None:
    rates = complete("")

    assert rates.keys() == LIMITED.keys() == DEFAULT.keys()
    assert rates["auth.login"] == Rate(60, 60)
    assert {name for name, rate in rates.items() if rate} == {
        "auth.login",
        "auth.register",
        "auth.refresh",
        "auth.link",
        "auth.provider",
        "auth.leaked",
    }


def test_what_is_not_named_keeps_its_default() -> None:
    changed = {"chats.send": Rate(1, 86400)}
    assert complete("chats.send=1/day") == {**complete(""), **changed}


@pytest.mark.parametrize(
    "entry",
    [
        "auth.lgoin=10/minute",
        "default",
        "default=",
        "default=0/minute",
        "default=-1/minute",
        "default=10/fortnight",
        "default=10",
        "default=1.5/second",
        "default=99999999/second",
        "10/minute",
    ],
)
def test_a_wrong_entry_is_named_at_the_start(entry: str) -> None:
    variables = {"SECRET_KEY": "x", "RATE_LIMITS": f"auth.refresh=1/day, {entry}"}

    with pytest.raises(ConfigError, match="RATE_LIMITS") as caught:
        load_settings(variables)

    assert f"`{entry}`" in str(caught.value)


def test_a_name_stands_there_once() -> None:
    with pytest.raises(ValueError, match=r"`default=2/minute` is the second"):
        parse("default=1/minute, default=2/minute")
