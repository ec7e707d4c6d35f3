from dataclasses import dataclass
from datetime import date

_SHARE = 8
"""A lease takes an eighth of what is left besides what it is for: the others find
something, and whoever spends much still asks seldom."""


@dataclass(frozen=True, slots=True)
class Need:
    """Credits and conversations: what is asked for, or what there is."""

    credits: int = 0
    conversations: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a lease got: nothing, where there was less than what was short.

    `left` is what there is besides; `elsewhere` tells, where it got nothing, whether
    other processes hold something.
    """

    got: Need
    left: Need
    day: date
    elsewhere: bool = False


def portion(short: int, left: int) -> int:
    """What a lease takes of `left`, where so much is short."""
    return short + (left - short) // _SHARE if short > 0 else 0
