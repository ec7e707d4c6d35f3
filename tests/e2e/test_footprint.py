"""What an installation takes: no times, which depend on the machine, but bytes."""

import re
from importlib.metadata import distribution
from pathlib import Path

import psutil
import pytest
from packaging.requirements import Requirement

from app.core.config import ROOT
from tests.e2e.conftest import Begin, NewDatabase

MIB = 2**20


@pytest.mark.asyncio(loop_scope="session")
async def test_an_idle_server_takes_at_most_150_mib_of_memory(
    begin: Begin, new_database: NewDatabase
) -> None:
    # Measured as people run it, not with the coverage of this test run in it.
    unmeasured = {"COVERAGE_PROCESS_START": "", "COVERAGE_PROCESS_CONFIG": ""}
    server = await begin(**await new_database(), **unmeasured)
    process = psutil.Process(server.pid)

    used = sum(p.memory_info().rss for p in [process, *process.children()])

    assert used <= 150 * MIB


def test_the_base_requirements_take_at_most_350_mib_of_disk() -> None:
    lock = (ROOT / "requirements" / "base.txt").read_text(encoding="utf-8")
    lines = re.findall(r"^[a-z0-9][^\\\n]*", lock, re.MULTILINE | re.IGNORECASE)
    required = [Requirement(line) for line in lines]
    names = [r.name for r in required if not r.marker or r.marker.evaluate()]
    assert len(names) > 30

    assert sum(installed_size(name) for name in names) <= 350 * MIB


def installed_size(name: str) -> int:
    files = distribution(name).files
    assert files, f"{name} does not tell its files"
    paths = [Path(str(file.locate())) for file in files]
    return sum(path.stat().st_size for path in paths if path.is_file())
