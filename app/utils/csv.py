"""CSV that no spreadsheet runs (OWASP, "CSV Injection").

A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, also
behind white space or in quotes. Such text gets an apostrophe in front, which
spreadsheets do not show.
"""

import csv
import io
from collections.abc import Iterable
from datetime import datetime

# The full-width forms too: some East Asian editions run them.
_FORMULA = tuple("=+-@\uff1d\uff0b\uff0d\uff20")
# Quotes, and whatever shows as nothing: white space, and the control characters.
_UNSEEN = "\"'\ufeff" + "".join(
    char for char in map(chr, range(0x3001)) if char.isspace() or char < " "
)


def line(cells: Iterable[object]) -> str:
    """One row with its line end (RFC 4180); None is an empty cell.

    Numbers stay as they are: what is no text cannot be a formula. Times are as JSON
    has them.
    """
    row = io.StringIO()
    csv.writer(row).writerow([_written(cell) for cell in cells])
    return row.getvalue()


def unquoted(cell: str) -> str:
    """The text that `line` was given, from the cell that a reader of CSV found."""
    return cell[1:] if cell.startswith("'") and _safe(cell[1:]) == cell else cell


def _written(cell: object) -> object:
    if isinstance(cell, datetime):
        return cell.isoformat().replace("+00:00", "Z")
    return _safe(cell) if isinstance(cell, str) else cell


def _safe(text: str) -> str:
    visible = text.lstrip(_UNSEEN)
    # A tab or a line break in front is enough for some to look behind it.
    dangerous = visible.startswith(_FORMULA) or text.startswith(("\t", "\r", "\n"))
    return f"'{text}" if dangerous else text
