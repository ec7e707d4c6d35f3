"""How often may what be asked: the syntax of RATE_LIMITS, and its defaults."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple


class Rate(NamedTuple):
    """At most `amount` in any `seconds`."""

    amount: int
    seconds: int


LIMITED = {
    "auth.login": "POST /auth/login and /token, the desk's too, for each address",
    "auth.register": "POST /auth/register, for each address",
    "auth.refresh": "POST /auth/refresh, the desk's too, for each address",
    "auth.link": "what mailed links are asked for and used by, for each address",
    "auth.provider": "logins by another identity provider, for each address",
    "auth.leaked": "POST /apikeys/leaked, for each address",
    "chats.send": "messages sent and replies continued, for each user",
    "default": "everything else, for each user, or address where nobody is logged in",
}
"""What has a limit of its own, and whom it counts."""

DEFAULT = {
    "auth.login": "60/minute",
    "auth.register": "60/minute",
    "auth.refresh": "120/minute",
    "auth.link": "30/minute",
    "auth.provider": "60/minute",
    "auth.leaked": "30/minute",
    "chats.send": "off",
    "default": "off",
}

_UNITS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
_RATE = re.compile(
    r"([1-9][0-9]{0,6}) */ *([1-9][0-9]{0,3})? *(second|minute|hour|day)s?"
)


def parse(text: str) -> dict[str, Rate | None]:
    """The limits that `text` names; None is no limit. ValueError names the entry."""
    rates: dict[str, Rate | None] = {}
    for entry in filter(None, (part.strip() for part in text.split(","))):
        name, _, rate = (part.strip() for part in entry.partition("="))
        if name not in LIMITED:
            raise ValueError(f"`{entry}` names none of {', '.join(LIMITED)}")
        if name in rates:
            raise ValueError(f"`{entry}` is the second entry of its name: keep one")
        rates[name] = _rate(entry, rate)
    return rates


@lru_cache
def complete(text: str) -> Mapping[str, Rate | None]:
    """The same, with the defaults for what `text` does not name."""
    return {name: _rate(name, rate) for name, rate in DEFAULT.items()} | parse(text)


def _rate(entry: str, rate: str) -> Rate | None:
    if rate == "off":
        return None
    match = _RATE.fullmatch(rate)
    if match is None:
        raise ValueError(
            f"`{entry}` is no limit: write {entry.partition('=')[0]}=10/minute, "
            "=100/15 minutes (second, minute, hour, day), or =off"
        )
    return Rate(int(match[1]), int(match[2] or 1) * _UNITS[match[3]])
