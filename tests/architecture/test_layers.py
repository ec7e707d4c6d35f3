"""The contracts about imports in pyproject.toml, and that they leave nothing out."""

from pathlib import Path
from typing import Any

import pytest
from importlinter import api
from importlinter.application import use_cases

from app.core.config import ROOT

CONFIGURATION = str(ROOT / "pyproject.toml")
APP = ROOT / "app"

ABOVE_THE_SERVICES = {"cli", "main", "api", "middleware"}
"""What may know the web framework."""


def contracts() -> dict[str, dict[str, Any]]:
    found = api.read_configuration(CONFIGURATION)["contracts_options"]
    return {contract["name"]: contract for contract in found}


def parts_of_the_app() -> set[str]:
    """Every package and module that lies directly in `app/`."""
    packages = {p.parent.name for p in APP.glob("*/__init__.py")}
    modules = {p.stem for p in APP.glob("*.py") if not p.stem.startswith("__")}
    return packages | modules


def test_imports_keep_to_the_contracts(capsys: pytest.CaptureFixture[str]) -> None:
    kept = use_cases.lint_imports(CONFIGURATION, cache_dir=None, no_logo=True)

    assert kept, capsys.readouterr().out


def test_a_broken_contract_would_be_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upside_down = tmp_path / "pyproject.toml"
    upside_down.write_text(
        "[tool.importlinter]\n"
        'root_package = "app"\n'
        "[[tool.importlinter.contracts]]\n"
        'name = "upside down"\n'
        'type = "forbidden"\n'
        'source_modules = ["app.services.auth"]\n'
        'forbidden_modules = ["app.core.tokens"]\n'
        "allow_indirect_imports = true\n"  # all chains would take minutes to print
    )

    kept = use_cases.lint_imports(str(upside_down), cache_dir=None, no_logo=True)

    assert not kept
    assert "app.services.auth -> app.core.tokens" in capsys.readouterr().out


def test_the_layers_list_every_part_of_the_app() -> None:
    layers = contracts()["Imports point down"]["layers"]

    listed = [part.strip() for layer in layers for part in layer.split(":")]
    assert sorted(listed) == sorted(f"app.{part}" for part in parts_of_the_app())


def test_the_web_framework_is_kept_from_everything_below_the_api() -> None:
    contract = contracts()["The web framework stays above the services"]

    below = parts_of_the_app() - ABOVE_THE_SERVICES
    assert sorted(contract["source_modules"]) == sorted(f"app.{p}" for p in below)
