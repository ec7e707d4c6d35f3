"""The official clients for Node in front of the gateway."""

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from app.core.config import ROOT
from tests.conftest import on_sqlite
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.openai import FakeOpenAI
from tests.integration.gateway import Gateway
from tests.integration.providers import MODELS, variables_for

CLIENTS = ROOT / "tests" / "clients"


async def run(*command: str, folder: Path, **variables: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=folder,
        env=os.environ | variables,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    told = (await process.communicate())[0].decode()
    assert process.returncode == 0, told
    return told


@pytest.mark.slow  # npm fetches the clients over the network
@on_sqlite
async def test_the_clients_for_node(
    serve: Any, fake_openai: FakeOpenAI, fake_anthropic: FakeAnthropic, tmp_path: Path
) -> None:
    folder = tmp_path / "clients"
    shutil.copytree(CLIENTS, folder)
    await run("npm", "ci", "--no-audit", "--no-fund", folder=folder)
    variables = variables_for("openai", fake_openai)
    variables |= variables_for("anthropic", fake_anthropic)
    async with serve(**variables) as server:
        gateway = await Gateway.opened(server, "openai", fake_openai)

        told = await run(
            "node",
            "--test",
            folder=folder,
            WORKROOM=server.url,
            KEY=gateway.key,
            MODELS=f"{MODELS['openai']},{MODELS['anthropic']}",
        )

    assert "# pass 7" in told
