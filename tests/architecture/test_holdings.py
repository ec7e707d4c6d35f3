"""D3: it is known of every table whose its rows are, so an erasure misses none."""

import re

import pytest
from sqlalchemy import LargeBinary, Table

from app.models import Base
from app.models.base import Sealed
from app.services.account import holdings

TABLES = Base.metadata.tables
LISTS = [holdings.OWNED, holdings.NAMING, holdings.OTHERS]
_SECRET = re.compile(
    r"hash|secret|token(?!s$|s_per_minute$|_limit$)|password|sealed|key$"
)

owned = pytest.mark.parametrize("name", holdings.OWNED)


def parents(table: Table) -> set[Table]:
    return {key.column.table for key in table.foreign_keys} - {table}


def test_every_table_is_in_exactly_one_list() -> None:
    """TRUST D3. A new table belongs into `app/services/account/holdings.py`."""
    listed = sorted(name for names in LISTS for name in names)

    assert listed == sorted(TABLES)


@owned
def test_what_is_owned_goes_with_its_owner(name: str) -> None:
    """TRUST D3. What no foreign key leads from, an erasure deletes itself."""
    table = TABLES[name]
    while table.name != "users":
        column, parent = holdings._link(table)
        if holdings.OWNED[table.name].by is not None:
            assert not column.foreign_keys
            return
        (key,) = column.foreign_keys
        assert key.ondelete == "CASCADE", f"{table}: {column} keeps its owner alive"
        table = parent


@pytest.mark.parametrize("name", sorted(TABLES.keys() - holdings.OWNED.keys()))
def test_what_is_not_owned_does_not_hang_on_what_is(name: str) -> None:
    """TRUST D3. Else an erasure would be refused, or take what is another's."""
    assert not {parent.name for parent in parents(TABLES[name])} & holdings.OWNED.keys()


@pytest.mark.parametrize("name", holdings.OTHERS)
def test_what_is_nobodys_names_no_user(name: str) -> None:
    assert "user_id" not in TABLES[name].columns


@owned
def test_an_owned_table_has_one_column_as_its_key(name: str) -> None:
    """Exports run along it, and erasures along those that name their user."""
    if holdings.OWNED[name].not_exported and TABLES[name] not in holdings.heads():
        return
    assert len(TABLES[name].primary_key.columns) == 1


@owned
def test_what_outlives_a_person_is_cleared_of_free_text(name: str) -> None:
    """TRUST D3."""
    how, table = holdings.OWNED[name], TABLES[name]
    assert all(table.columns[column].nullable for column in how.cleared)
    if how.kept is not None:
        assert how.by is not None, "its foreign key would take it along"


@owned
def test_an_export_shows_no_secret(name: str) -> None:
    """TRUST D2."""
    how, table = holdings.OWNED[name], TABLES[name]
    assert how.hidden <= set(table.columns.keys())
    if how.not_exported is not None:
        return

    shown = [c for c in table.columns if c.name not in how.hidden]
    assert not [c.name for c in shown if isinstance(c.type, LargeBinary)]
    assert not [c.name for c in shown if _SECRET.search(c.name)]


def test_a_user_s_row_has_no_sealed_column() -> None:
    """It belongs into a table of its own.

    Sealed once more with the row of a deleted user, no rotation of keys would reach it.
    """
    assert not [c.name for c in TABLES["users"].columns if isinstance(c.type, Sealed)]
