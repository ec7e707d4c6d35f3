"""A model of sentence-transformers as it is: small, of chance, and made here."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import BertConfig, BertModel, BertTokenizer

from app.core.config import ModelSettings
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.embeddings import EmbedRequest, InputType, embed
from app.integrations.llm.local import LocalProvider
from tests.conftest import Server
from tests.integration.rows import settled
from tests.integration.test_projects import paste, project_of, texts

WIDTH, LONGEST = 32, 16
"""Numbers of a vector; tokens that the model reads of a text."""

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", ":", "query", "passage"]
WORDS += ["car", "fuel", "horse", "zebra"]
PROMPTS = {"query": "query: ", "document": "passage: "}


def save(folder: Path, prompts: dict[str, str]) -> None:
    shape = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=WIDTH,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=WIDTH,
        max_position_embeddings=LONGEST,
    )
    inner = str(folder / "transformer")
    BertModel(shape).save_pretrained(inner)
    vocabulary = {word: number for number, word in enumerate(WORDS)}
    BertTokenizer(vocab=vocabulary).save_pretrained(inner)
    parts = [Transformer(inner, max_seq_length=LONGEST), Pooling(WIDTH)]
    SentenceTransformer(modules=parts, prompts=prompts, device="cpu").save(str(folder))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    save(folder, PROMPTS)
    return folder


@pytest.fixture
async def local(folder: Path) -> AsyncIterator[LocalProvider]:
    made = LocalProvider(ModelSettings(embedding=f"local/{folder}"), Catalogue.load())
    yield made
    await made.close()


async def test_its_vectors_are_those_that_the_library_makes(
    local: LocalProvider, folder: Path
) -> None:
    asked = ["zebra", "car fuel", "horse " * 100, ""] * 20  # the third is too long
    kinds: tuple[InputType, ...] = ("query", "document")
    told = [
        await embed(local, EmbedRequest(str(folder), asked, input_type=kind))
        for kind in kinds
    ]

    model = SentenceTransformer(str(folder), device="cpu")
    for kind, made in zip(kinds, told, strict=True):
        expected = model.encode([PROMPTS[kind] + text for text in asked])
        for vector, right in zip(made.vectors, expected.tolist(), strict=True):
            assert vector == pytest.approx(right, abs=1e-5)
    assert told[0].vectors[0] != pytest.approx(told[1].vectors[0], abs=1e-3)
    assert [info.dimensions for info in await local.models()] == [WIDTH]


async def test_its_process_gets_no_setting_of_the_server(
    local: LocalProvider, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SECRET_KEY", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "HF_HOME"):
        monkeypatch.setenv(name, "of the server")

    await embed(local, EmbedRequest(str(folder), ["zebra"]))

    child = local._encoder._child
    assert child is not None
    got = psutil.Process(child.process.pid).environ()
    assert [name for name, value in got.items() if value == "of the server"] == [
        "HF_HOME"
    ]


async def test_a_model_without_prompts_makes_no_difference(folder: Path) -> None:
    save(folder, {})
    local = LocalProvider(ModelSettings(embedding=f"local/{folder}"), Catalogue.load())

    question = await embed(
        local, EmbedRequest(str(folder), ["zebra"], input_type="query")
    )
    document = await embed(local, EmbedRequest(str(folder), ["zebra"]))

    assert question.vectors[0] == document.vectors[0]
    await local.close()


async def test_a_project_is_searched_by_it(
    serve: Callable[..., AbstractAsyncContextManager[Server]], folder: Path
) -> None:
    async with serve(EMBEDDING_MODEL=f"local/{folder}") as server:
        ada = await server.client("ada")
        project = await project_of(ada)
        await paste(ada, project, "The zebra is a horse.")
        await settled(server)

        # Not one word in common: its vector alone can find it.
        assert await texts(ada, project, "car fuel") == ["The zebra is a horse."]


async def test_a_name_of_the_hub_downloads_nothing(tmp_path: Path) -> None:
    """Nobody but us is there to be asked, and the library does not even try."""
    script = (
        "import socket, sys\n"
        "def refuse(*_): raise SystemExit('asked the network')\n"
        "socket.getaddrinfo = refuse\n"
        "from app.integrations.llm.local_child import load\n"
        "load('intfloat/multilingual-e5-small')\n"
    )

    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script],
        env={"HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "asked the network" not in done.stderr
    assert "OSError" in done.stderr
