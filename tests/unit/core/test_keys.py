import re
import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.keys import KeyKind, kind_of, looks_like_key, new_key, prefix_of

KEY = new_key(KeyKind.USER)


def test_a_key_is_a_prefix_160_random_bits_and_a_checksum() -> None:
    """TRUST K1."""
    match = re.fullmatch(r"wr_([0-9A-Za-z]{12})_([0-9A-Za-z]{32})[0-9A-Za-z]{6}", KEY)

    assert match is not None
    assert 62 ** len(match[2]) >= 2**160
    assert prefix_of(KEY) == f"wr_{match[1]}"
    assert len({new_key(KeyKind.USER) for _ in range(100)}) == 100


def test_each_kind_is_told_from_the_other() -> None:
    service = new_key(KeyKind.SERVICE)

    assert kind_of(KEY) is KeyKind.USER
    assert kind_of(service) is KeyKind.SERVICE
    assert kind_of("wr_" + service.removeprefix("wrs_")) is None


def test_the_checksum_is_the_one_that_the_libraries_compute() -> None:
    """Fixed for all time: keys are out there, and clients check them."""
    body = "wr_000000000000_" + "0" * 32

    assert kind_of(f"{body}4M0v2D") is KeyKind.USER
    assert kind_of(f"{body}000000") is None


@given(st.integers(0, len(KEY) - 1), st.sampled_from(string.printable))
def test_one_wrong_character_is_no_key(place: int, character: str) -> None:
    """TRUST K1: a burst of at most 32 bits never slips through a CRC-32."""
    changed = KEY[:place] + character + KEY[place + 1 :]

    assert (kind_of(changed) is None) == (changed != KEY)


@pytest.mark.parametrize(
    "text",
    ["", "wr_", KEY + " ", KEY + "\n", KEY[:-1], f" {KEY}", KEY.upper(),
     "wr_' OR 1=1--", KEY.replace("_", "-"),
     "wr_" + "٣" * 12 + "_" + "٣" * 38, "wr_" * 10_000],
    ids=range(11),
)  # fmt: skip
def test_what_is_no_key_is_none(text: str) -> None:
    assert kind_of(text) is None


def test_what_was_meant_as_a_key_is_told_from_a_token() -> None:
    assert looks_like_key("wr_wrong")
    assert looks_like_key("wrs_wrong")
    assert not looks_like_key("eyJhbGciOiJIUzI1NiJ9.e30.x")
