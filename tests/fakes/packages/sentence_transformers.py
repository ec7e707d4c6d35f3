"""What is used of sentence-transformers, for a child process that finds it here.

A vector tells how long its text is, and whether it is a question's. Texts can do more:
`read PATH` waits until somebody writes into that pipe, `die` ends the process.
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

DIMENSIONS = 2


class SentenceTransformer:
    def __init__(self, name: str, *, local_files_only: bool) -> None:
        if not local_files_only:
            raise OSError("there is no network")
        if not Path(name).is_dir():
            raise OSError(f"{name} is no folder")
        print("a library that talks")  # noqa: T201 - as libraries do

    def get_embedding_dimension(self) -> int:
        return DIMENSIONS

    def encode_query(self, texts: Sequence[str], **_: Any) -> Any:
        return _vectors(texts, 1)

    def encode_document(self, texts: Sequence[str], **_: Any) -> Any:
        return _vectors(texts, 0)


def _vectors(texts: Sequence[str], is_question: int) -> Any:
    for text in texts:
        if text.startswith("read "):
            Path(text.removeprefix("read ")).read_bytes()
        if text == "die":
            os._exit(3)
    return np.array([(len(text), is_question) for text in texts])
