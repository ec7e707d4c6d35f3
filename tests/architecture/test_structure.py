"""PROJECT_STRUCTURE.md is true: nothing is missing in it, and nothing is made up."""

import re
from collections.abc import Iterator

from app.core.config import ROOT

PAGE = (ROOT / "PROJECT_STRUCTURE.md").read_text(encoding="utf-8")
TABLE_NAMES = {
    "app/", "api/v1/", "core/", "models/", "schemas/", "services/", "tasks/", "utils/",
    "middleware/", "Alembic", "Celery", "Redis", "PostgreSQL", "Pydantic",
}  # fmt: skip
"""Of the usual layout: each must say where it lives here."""

_LINE = re.compile(r"(?P<indent> *)(?P<name>\S+) *(?P<meaning>.*)")
_INDENT = 2


def tree() -> Iterator[tuple[str, str]]:
    """Each line of the tree: a path from the root, and what it is."""
    folders: list[str] = []
    for line in PAGE.split("```")[1].strip("\n").splitlines():
        match = _LINE.fullmatch(line)
        assert match is not None, line
        del folders[len(match["indent"]) // _INDENT :]
        yield "".join(folders) + match["name"], match["meaning"]
        if match["name"].endswith("/"):
            folders.append(match["name"])


def rows() -> dict[str, str]:
    """The table: each usual name, and where it is here."""
    cells = [line.strip("| ").split(" | ", 1) for line in PAGE.splitlines() if line]
    return {row[0].strip("`"): row[1] for row in cells if len(row) == 2}


def test_every_module_of_the_app_is_in_the_tree() -> None:
    named = {path for path, _ in tree()}
    modules = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "app").rglob("*.py")
        if path.name != "__init__.py"
    }

    assert sorted(modules - named) == []


def test_every_folder_of_code_is_in_the_tree() -> None:
    named = {path for path, _ in tree()}
    folders = {
        f"{path.parent.relative_to(ROOT).as_posix()}/"
        for top in ("app", "tests")
        for path in (ROOT / top).rglob("__init__.py")
    }
    outside_of_units = {f for f in folders if not f.startswith("tests/unit/")}

    assert sorted(outside_of_units - named) == []


def test_every_path_in_the_tree_exists() -> None:
    missing = [
        path
        for path, _ in tree()
        if not (ROOT / path).exists() or (ROOT / path).is_dir() != path.endswith("/")
    ]

    assert missing == []


def test_a_path_stands_in_the_tree_once_and_says_what_it_is() -> None:
    paths = [path for path, _ in tree()]

    assert sorted(paths) == sorted(set(paths))
    assert [path for path, meaning in tree() if not meaning] == ["app/", "alembic/"]


def test_the_usual_names_are_told_and_lead_somewhere() -> None:
    table = rows()

    assert table.keys() >= TABLE_NAMES
    paths = [
        p for here in table.values() for p in re.findall(r"`([\w./]*/[\w./]*)`", here)
    ]
    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []
