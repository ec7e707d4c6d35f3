"""Models in a child process of ours; tests/extra has a real one."""

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from app.core.config import ROOT, ConfigError, ModelSettings
from app.integrations.llm.base import (
    ChatRequest,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.embeddings import Embedded, EmbedRequest, embed
from app.integrations.llm.local import MOST_INPUTS, LocalProvider

PACKAGES = str(ROOT / "tests" / "fakes" / "packages")
CATALOGUE = Catalogue.load()


@pytest.fixture
def extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library is there, as far as anybody looks."""
    monkeypatch.syspath_prepend(PACKAGES)
    monkeypatch.setenv("PYTHONPATH", PACKAGES)


@pytest.fixture
async def local(extra: None, tmp_path: Path) -> AsyncIterator[LocalProvider]:
    provider = made(f"local/{tmp_path}")
    yield provider
    await provider.close()


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


def made(model: str, **settings: Any) -> LocalProvider:
    return LocalProvider(ModelSettings(embedding=model, **settings), CATALOGUE)


async def embedded(provider: LocalProvider, *texts: str, **wishes: Any) -> Embedded:
    (info,) = await provider.models()
    return await embed(provider, EmbedRequest(info.id, texts, **wishes))


@asynccontextmanager
async def held(pipe: Path) -> AsyncIterator[None]:
    """While this lasts, the child waits at the pipe."""
    end = await asyncio.to_thread(os.open, pipe, os.O_WRONLY)
    try:
        yield
    finally:
        os.close(end)


def children() -> list[psutil.Process]:
    return [
        one
        for one in psutil.Process().children()
        if "app.integrations.llm.local_child" in one.cmdline()
    ]


def test_what_is_not_installed_is_told_with_the_mend(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)

    with pytest.raises(ConfigError) as told:
        made("local/intfloat/e5")

    assert str(told.value) == (
        "EMBEDDING_MODEL: local/intfloat/e5 needs sentence-transformers and torch: "
        "`pip install -r requirements/torch.txt`, then `pip install --no-deps "
        "--require-hashes -r requirements/embeddings.txt`"
    )


def test_a_folder_that_is_not_there_is_told(extra: None) -> None:
    with pytest.raises(ConfigError, match="there is no folder /nowhere"):
        made("local//nowhere")


@pytest.mark.parametrize("model", ["", "openai/local"])
async def test_nothing_is_on_offer_where_nothing_is_set(model: str) -> None:
    provider = made(model)

    assert await provider.models() == []
    assert "EMBEDDING_MODEL" in str(provider.missing)
    with pytest.raises(ProviderNotConfiguredError):
        await provider.embed(EmbedRequest("e5", ["one"]))
    await provider.close()


async def test_the_model_is_on_offer_and_no_child_begins_before_a_call(
    local: LocalProvider, tmp_path: Path
) -> None:
    (info,) = await local.models()

    assert (local.missing, info.name) == (None, f"local/{tmp_path}")
    assert info.capabilities == {"embeddings"}
    assert info.dimensions is None
    assert children() == []
    with pytest.raises(ProviderRejectedError, match="does not chat"):
        local.stream(ChatRequest(info.id, []))


async def test_texts_become_vectors_in_their_order_and_its_length_is_known_then(
    local: LocalProvider,
) -> None:
    texts = ["a" * length for length in range(2 * MOST_INPUTS + 1)]

    told = await embedded(local, *texts)
    asked = await embedded(local, "naïve", input_type="query")

    (info,) = await local.models()
    assert [vector[0] for vector in told.vectors] == list(range(len(texts)))
    assert [vector.tolist() for vector in asked.vectors] == [[5, 1]]  # type: ignore[attr-defined] # an array
    assert told.estimated
    assert info.dimensions == 2
    assert len(children()) == 1


async def test_a_question_waits_for_no_document_but_the_one_at_work(
    local: LocalProvider, pipe: Path
) -> None:
    ended: list[str] = []

    async def ask(*texts: str, **wishes: Any) -> None:
        await embedded(local, *texts, **wishes)
        ended.append(texts[0][:8])

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask(f"read {pipe}"))
        async with held(pipe):
            tasks.create_task(ask("document"))
            tasks.create_task(ask("question", input_type="query"))

    assert ended == [f"read {pipe}"[:8], "question", "document"]


async def test_who_leaves_breaks_nobody_s_answer_off(
    local: LocalProvider, pipe: Path
) -> None:
    leaves = asyncio.create_task(embedded(local, f"read {pipe}"))
    waits = asyncio.create_task(embedded(local, "never asked"))
    stays = asyncio.create_task(embedded(local, "four"))
    async with held(pipe):
        for task in (leaves, waits):
            task.cancel()

    assert [vector[0] for vector in (await stays).vectors] == [4]
    assert leaves.cancelled()


async def test_a_child_that_dies_is_told_and_the_next_call_begins_another(
    local: LocalProvider,
) -> None:
    with pytest.raises(ProviderUnavailableError, match="died at its work"):
        await embedded(local, "die")

    assert [vector[0] for vector in (await embedded(local, "four")).vectors] == [4]


async def test_what_takes_too_long_is_ended(
    extra: None, tmp_path: Path, pipe: Path
) -> None:
    provider = made(f"local/{tmp_path}", stall_seconds=1)

    with pytest.raises(ProviderTimeoutError, match="longer than 1 s"):
        await embedded(provider, f"read {pipe}")

    assert children() == []
    await provider.close()


async def test_a_model_that_cannot_be_loaded_is_tried_once(
    extra: None, capsys: pytest.CaptureFixture[str]
) -> None:
    provider = made("local/intfloat/absent")

    for _ in range(2):
        with pytest.raises(ProviderNotConfiguredError, match="hf download intfloat/"):
            await provider.embed(EmbedRequest("intfloat/absent", ["one"]))

    assert await provider.models() == []
    assert "cannot be loaded" in str(provider.missing)
    assert capsys.readouterr().out.count("intfloat/absent is no folder") == 1
    await provider.close()


_SERVER = """
import asyncio, os, signal, sys, app.main, psutil
from app.core.config import ModelSettings
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.embeddings import EmbedRequest
from app.integrations.llm.local import LocalProvider
async def main():
    settings = ModelSettings(embedding="local/" + sys.argv[1])
    local = LocalProvider(settings, Catalogue.load())
    await local.embed(EmbedRequest(sys.argv[1], ["four"]))
asyncio.run(main())
print(*{"torch", "sentence_transformers"} & sys.modules.keys())
print(*(child.pid for child in psutil.Process().children()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_the_server_loads_nothing_and_a_kill_leaves_no_child(tmp_path: Path) -> None:
    """The model's memory is the child's alone, and gone with it."""
    done = subprocess.run(
        [sys.executable, "-c", _SERVER, tmp_path],
        env={"PYTHONPATH": f"{PACKAGES}{os.pathsep}{ROOT}"},
        capture_output=True,
        check=False,
        text=True,
    )

    loaded, pid = done.stdout.splitlines()
    assert loaded == ""
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(pid)).wait(timeout=30)


async def test_only_the_model_of_the_setting_is_loaded(
    local: LocalProvider, tmp_path: Path
) -> None:
    with pytest.raises(ProviderRejectedError, match=f"Only local/{tmp_path} is loaded"):
        await local.embed(EmbedRequest("another", ["one"]))


async def test_the_child_ends_with_the_provider(local: LocalProvider) -> None:
    await embedded(local, "one")
    (child,) = children()

    await local.close()

    assert not child.is_running()
