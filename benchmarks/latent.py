"""An embedder that needs no weights: latent semantic analysis of the collection itself.

S. Deerwester et al., "Indexing by latent semantic analysis", JASIS 1990: texts as their
terms' weights, in the space of the first singular vectors of all of them. It knows the
collection's words alone; a model that has read more is better. It speaks as OpenAI's
embeddings API does.
"""

import json
import math
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from app.integrations.search.words import terms

MODEL = "latent-embed"
_DIMENSIONS = 200

Vector = np.ndarray[Any, np.dtype[np.float64]]


class Latent:
    def __init__(self, texts: Sequence[str]) -> None:
        having = Counter(term for text in texts for term in set(terms(text)))
        known = sorted(term for term, count in having.items() if count > 1)
        self._places = {term: place for place, term in enumerate(known)}
        self._rarity = np.array([math.log(len(texts) / having[term]) for term in known])
        weighed = np.array([self._weights(text) for text in texts])
        self._axes = np.linalg.svd(weighed, full_matrices=False)[2][:_DIMENSIONS].T

    def embed(self, text: str) -> list[float]:
        return [float(x) for x in _unit(self._weights(text) @ self._axes)]

    def _weights(self, text: str) -> Vector:
        weights = np.zeros(len(self._places))
        for term, count in Counter(terms(text)).items():
            if (place := self._places.get(term)) is not None:
                weights[place] = (1 + math.log(count)) * self._rarity[place]
        return _unit(weights)


def _unit(vector: Vector) -> Vector:
    length = np.linalg.norm(vector)
    return vector / length if length else vector


@contextmanager
def serving(texts: Sequence[str]) -> Iterator[str]:
    """Gives the address of the API."""
    latent = Latent(texts)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told = [
                {"index": place, "embedding": latent.embed(text)}
                for place, text in enumerate(asked["input"])
            ]
            body = json.dumps({"data": told}).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
