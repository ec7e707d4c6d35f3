"""docs/QUICKSTART.md, followed to the letter against a fresh installation."""

import asyncio
import json
import re
import subprocess
from pathlib import Path

import pytest

from app.core.config import ROOT
from tests.e2e.conftest import Begin
from tests.e2e.processes import environment

pytestmark = pytest.mark.asyncio(loop_scope="session")

MARK = "---- block ----"


def blocks() -> list[str]:
    page = (ROOT / "docs" / "QUICKSTART.md").read_text(encoding="utf-8")
    return re.findall(r"^```sh\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def run(base: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """All blocks, one after the other, in one shell that any failure ends."""
    script = "set -eu\n" + f"echo; echo '{MARK}'\n".join(blocks())
    return subprocess.run(
        ["sh"],
        input=script + '\necho; echo "$TOKEN"',
        cwd=folder,
        env=environment({"BASE": base, "TMPDIR": str(folder)}),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


async def test_the_quickstart_works_as_it_is_written(
    begin: Begin, tmp_path: Path
) -> None:
    """Register, log in, ask, resume, list models: each block shows what it promises."""
    server = await begin(AWS_REGION="", OPENAI_BASE_URL="")

    done = await asyncio.to_thread(run, server.url, tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    registered, logged_in, created, asked, resumed, listed = done.stdout.split(MARK)
    assert json.loads(registered)["email"] == "ada@example.com"
    assert logged_in.strip() == created.strip() == ""
    models, token = listed.strip().splitlines()
    assert token.count(".") == 2
    (available,) = (m for m in json.loads(models)["items"] if m["available"])
    assert available["name"] == "guide/manual"

    events = asked.strip().split("\n\n")
    names = [event.partition("\n")[0] for event in events]
    assert names[0] == "event: message_start"
    assert names[-1] == "event: message_stop"
    assert "event: citation" in names
    final = json.loads(events[-1].rpartition("data: ")[2])["message"]
    assert final["text"].startswith("I am the guide")
    assert final["citations"][0]["source"].startswith("docs/guides/bedrock.md")
    rest = resumed.strip().split("\n\n")
    assert text_of(events) == final["text"]
    assert text_of([*events[:5], *rest]) == final["text"]
    assert rest[-1] == events[-1]


def text_of(events: list[str]) -> str:
    """The text of the deltas; each event is three lines."""
    lines = [event.split("\n") for event in events]
    deltas = (line[2] for line in lines if line[0] == "event: delta")
    return "".join(json.loads(d.removeprefix("data: "))["text"] for d in deltas)
