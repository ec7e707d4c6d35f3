"""docs/guides/chat.md, followed to the letter: its examples, one after the other."""

import asyncio
import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from app.core.config import ROOT
from tests.conftest import Server
from tests.fakes.anthropic import API_KEY, FakeAnthropic

MARK = "---- block ----"
GUIDES = ROOT / "docs" / "guides"


def examples(guide: str) -> list[str]:
    page = (GUIDES / guide).read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run(base: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """All in one shell that any failure ends, behind those of accounts.md: a login."""
    login, blocks = examples("accounts.md")[:3], examples("chat.md")
    script = f"\necho; echo '{MARK}'\n".join(["set -eu\n" + "\n".join(login), *blocks])
    return subprocess.run(
        ["sh"],
        input=script,
        cwd=folder,
        env={"PATH": os.environ["PATH"], "BASE": base},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def documents(text: str) -> list[Any]:
    """JSON documents that stand one behind the other."""
    found = []
    while text:
        document, end = json.JSONDecoder().raw_decode(text)
        found.append(document)
        text = text[end:].strip()
    return found


@pytest.fixture
async def server(serve: Any, fake_anthropic: FakeAnthropic) -> Any:
    """With a model that sees images, as the examples send one."""
    variables = {
        "ANTHROPIC_BASE_URL": fake_anthropic.url,
        "ANTHROPIC_API_KEY": API_KEY,
    }
    async with serve(**variables) as server:
        yield server


async def test_the_examples_of_the_chat_guide_work_as_they_are_written(
    server: Server, tmp_path: Path
) -> None:
    done = await asyncio.to_thread(run, server.url, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    problems = re.findall(r'"code":"(\w+)"', done.stdout)
    assert problems == ["nothing_to_continue"]  # for a reply that came to its end
    (
        _login, _created, temporary, managed, sent, _whole, image, messages, resumed,
        stopped, _continued, branched, branches, rated, found, forked, _exported,
        shared, revoked, deleted, once, models,
    ) = (block.strip() for block in done.stdout.split(MARK))  # fmt: skip

    assert json.loads(temporary)["temporary"]
    listed, shown, renamed, *_, back = documents(managed)
    assert listed["items"] == [shown]
    assert (renamed["title"], back["archived"]) == ("Summer", False)
    for stream in (sent, image, resumed):
        assert stream.count("event: message_stop") == 1
    assert stopped.count('"status":"complete"') == 1
    assert "event: message_start" in sent
    assert "event: message_start" not in resumed
    assert branched.count("event: message_stop") == 2
    reply, page = documents(messages)
    assert len(page["items"]) == 2
    assert reply["role"] == "assistant"
    branch, chat = documents(branches)
    assert branch["items"][0]["id"] == reply["id"]
    assert chat["leaf_id"] != reply["id"]  # but to the newest version
    assert json.loads(rated)["rating"] == -1
    assert [one["title"] for one in json.loads(found)["items"]] == ["Summer"]
    assert json.loads(forked)["title"] == "Plan B"
    tree = json.loads((tmp_path / "chat.json").read_text(encoding="utf-8"))
    assert len(tree["messages"]) == 9
    assert (tmp_path / "chat.md").read_text(encoding="utf-8").startswith("# Summer\n")
    assert "/shared/" in json.loads(shared)["url"]
    assert (revoked, deleted) == ("", "")
    assert json.loads(once)["title"] == "Only once"
    assert json.loads(models)["items"]
