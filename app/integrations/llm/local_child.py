"""The child process that a local model runs in: see `local_process`.

Called with the model. It writes a line of JSON once that is loaded, `{"dimensions":
384}`, and then an answer to each line that it reads, `{"texts": [...], "is_document":
true}`: a line `{"rows": 2, "width": 384}`, and the numbers, 4 bytes each.
"""

import json
import os
import sys
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_POLITE = 10
"""Of nice(2): whoever answers people goes first."""


def load(name: str) -> "SentenceTransformer":
    """From a folder, or from what was downloaded before; never from the network."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - reads that

    return SentenceTransformer(name, local_files_only=True)


def serve(model: "SentenceTransformer", asked: IO[bytes], answers: IO[bytes]) -> None:
    """Until there is nothing more to read."""
    _tell(answers, dimensions=model.get_embedding_dimension())
    for line in asked:
        ask = json.loads(line)
        # A model that tells the two apart has a prompt for each.
        encode = model.encode_document if ask["is_document"] else model.encode_query
        made = encode(ask["texts"], show_progress_bar=False).astype("float32")
        _tell(answers, rows=len(made), width=made.shape[1])
        answers.write(made.tobytes())
        answers.flush()


def _tell(answers: IO[bytes], **told: int | None) -> None:
    answers.write(json.dumps(told).encode() + b"\n")
    answers.flush()


def main(name: str) -> None:
    if sys.platform != "win32":
        os.nice(_POLITE)
    # What a library prints is no answer.
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    serve(load(name), sys.stdin.buffer, answers)


if __name__ == "__main__":
    main(*sys.argv[1:])
