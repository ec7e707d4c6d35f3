"""The search in a project's documents: how good, how fast, and what ingest costs.

    python -m benchmarks.retrieval FOLDER [--database sqlite|postgresql] [--embedder]

FOLDER holds the Cranfield collection (cran.all.1400, cran.qry, cranqrel; every pair
with a grade above 0 is relevant). All is asked over HTTP, by one client. `--embedder`
tells only how good the search is with one, which is made of the collection: see
`latent.py`.
"""

import asyncio
import itertools
import json
import random
import re
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import UUID

from sqlalchemy import select

from app.core.config import load_settings
from app.core.database import Database
from app.models import Project, ProjectDocument
from app.services.knowledge import indexing
from benchmarks import latent
from benchmarks.harness import (
    PATIENCE,
    Report,
    Server,
    Workplace,
    parser,
    quantile,
    register,
)

FEW, MANY = 1_000, 50_000  # chunks
SENTENCES = 9  # of a chunk: some 110 terms
RARE = 0.4
"""The share of words that are made rarer: Cranfield is about one thing alone."""

SEARCHES, TURNS, INGESTED = 200, 40, 1_000
LEAST_MAP = 0.345
MOST_SECONDS = 0.05


@dataclass(frozen=True)
class Collection:
    documents: dict[int, tuple[str, str]]
    """Title and text by number."""
    questions: list[str]
    relevant: dict[int, set[int]]
    """By the questions' places, from 1."""

    @classmethod
    def read(cls, folder: Path) -> "Collection":
        documents = {}
        for record in _records(folder / "cran.all.1400"):
            number, rest = record.split("\n", 1)
            found = re.match(r"\.T\n(.*?)\.A\n.*?\.W\n(.*)", rest, re.DOTALL)
            assert found
            documents[int(number)] = (found[1].strip(), found[2].strip())
        questions = [
            " ".join(record.split(".W\n")[1].split())
            for record in _records(folder / "cran.qry")
        ]
        relevant: dict[int, set[int]] = defaultdict(set)
        for line in (folder / "cranqrel").read_text().splitlines():
            question, document, grade = map(int, line.split())
            if grade > 0:
                relevant[question].add(document)
        return cls(documents, questions, relevant)

    def sentences(self) -> list[str]:
        text = " ".join(text for _, text in self.documents.values())
        return [s for s in " ".join(text.split()).split(" . ") if s]


def _records(path: Path) -> list[str]:
    return re.split(r"^\.I ", path.read_text(), flags=re.MULTILINE)[1:]


class Client:
    """One connection, kept open."""

    def __init__(self, server: Server, token: str) -> None:
        self._host = urlsplit(server.url).netloc
        self._connection = HTTPConnection(self._host, timeout=PATIENCE)
        self._headers = {
            "Authorization": f"Bearer {token}",
            "Content-Type": "application/json",
        }

    def call(self, method: str, path: str, body: Any = None) -> Any:
        data = json.dumps(body) if body is not None else None
        self._connection.request(method, f"/api/v1{path}", data, self._headers)
        response = self._connection.getresponse()
        answer = response.read()
        assert response.status < 300, answer
        return json.loads(answer) if answer else None

    def project(self) -> str:
        return str(self.call("POST", "/projects", {"name": "Benchmark"})["id"])

    def add(self, project: str, title: str, text: str) -> str:
        form = {"title": title[:255] or "-", "text": text or "-"}
        return str(self.call("POST", f"/projects/{project}/documents", form)["id"])

    def pending(self, project: str) -> int:
        """How many of its documents are not ready."""
        path = f"/projects/{project}/documents?limit=100"
        found = self.call("GET", path)
        count = 0
        while True:
            count += sum(item["state"] != "ready" for item in found["items"])
            if (cursor := found["next_cursor"]) is None:
                return count
            found = self.call("GET", f"{path}&cursor={cursor}")

    def search(self, project: str, query: str, limit: int) -> list[Any]:
        path = f"/projects/{project}/search?limit={limit}&q={quote(query)}"
        found: list[Any] = self.call("GET", path)["items"]
        return found

    def first_token(self) -> float:
        """Seconds from a question to the first piece of the guide's answer."""
        chat = self.call("POST", "/chats", {"title": "Benchmark"})["id"]
        form = json.dumps({"content": "How do I make a backup?"})
        begun = time.perf_counter()
        path = f"/api/v1/chats/{chat}/messages"
        self._connection.request("POST", path, form, self._headers)
        response = self._connection.getresponse()
        while not response.readline().startswith(b"event: delta"):
            pass
        seconds = time.perf_counter() - begun
        response.read()
        return seconds


def mean_average_precision(
    client: Client, collection: Collection, *, embeds: str | None = None
) -> float:
    """Of the first 100 passages, each document by its best one.

    `embeds` is the URL of the database, where an embedder is to be waited for.
    """
    project = client.project()
    numbers = {
        client.add(project, title, text): number
        for number, (title, text) in collection.documents.items()
    }
    while client.pending(project):
        time.sleep(0.5)
    if embeds is not None:
        asyncio.run(_embedded(embeds))
    total = 0.0
    for place, question in enumerate(collection.questions, 1):
        found = client.search(project, question, 100)
        ranked = dict.fromkeys(numbers[item["document"]["id"]] for item in found)
        total += _average_precision(ranked, collection.relevant[place])
    return total / len(collection.questions)


async def _embedded(url: str) -> None:
    database = _database(url)
    lacking = select(ProjectDocument.id).where(
        ProjectDocument.embedded < ProjectDocument.chunks
    )
    left = True
    while left:
        await asyncio.sleep(0.5)
        async with database.unit_of_work(read_only=True) as session:
            left = (await session.scalars(lacking.limit(1))).first() is not None
    await database.close()


def _database(url: str) -> Database:
    settings = load_settings({"SECRET_KEY": "x", "DATABASE_URL": url}, Path("/"))
    return Database(settings, patient=True)


def _average_precision(ranked: dict[int, None], relevant: set[int]) -> float:
    total, hits = 0.0, 0
    for place, number in enumerate(ranked, 1):
        if number in relevant:
            hits += 1
            total += hits / place
    return total / len(relevant)


def made_up(collection: Collection, seed: int) -> Iterator[str]:
    """Chunks of its sentences, in which a part of the words are rarer."""
    draw = random.Random(seed)  # noqa: S311 - the same each time, and no secret
    sentences = [sentence.split() for sentence in collection.sentences()]
    while True:
        words = itertools.chain(*draw.choices(sentences, k=SENTENCES))
        yield " ".join(
            f"{word}{draw.randrange(40)}" if draw.random() < RARE else word
            for word in words
        )


async def seed(url: str, user: str, texts: Iterator[str], count: int) -> str:
    """A project with so many chunks, as the server would have stored them."""
    database = _database(url)
    async with database.unit_of_work() as session:
        project = Project(user_id=UUID(user), name="Large")
        session.add(project)
    at_once = indexing.Indexing(database, rest=0)  # nobody else waits
    while count > 0:
        async with database.unit_of_work() as session:
            text = "\n\n".join(itertools.islice(texts, min(count, 200)))
            document = ProjectDocument(
                project_id=project.id, title="-", text=text, characters=0, tokens=0
            )
            session.add(document)
        await at_once.index(document.id)
        async with database.unit_of_work(read_only=True) as session:
            count -= (await session.get_one(ProjectDocument, document.id)).chunks
    await database.close()
    return str(project.id)


def search_seconds(client: Client, project: str, collection: Collection) -> list[float]:
    took = []
    questions = itertools.islice(itertools.cycle(collection.questions), SEARCHES)
    for question in questions:
        begun = time.perf_counter()
        client.search(project, question, 10)
        took.append(time.perf_counter() - begun)
    return took


def ingest(client: Client, texts: Iterator[str]) -> float:
    """Chunks a second of one long document, by a job."""
    project = client.project()
    text = "\n\n".join(itertools.islice(texts, INGESTED))
    begun = time.perf_counter()
    document = client.add(project, "Long", text)
    while True:
        found = client.call("GET", f"/projects/{project}/documents?limit=1")["items"]
        assert found[0]["id"] == document
        if found[0]["state"] == "ready":
            return float(found[0]["chunks"] / (time.perf_counter() - begun))
        time.sleep(0.1)


@dataclass
class FirstTokens:
    """Seconds; and how many documents a second were sent, and were found then."""

    quiet: list[float]
    sending: list[float]
    indexing: list[float]
    sent: float
    found: float


def first_tokens(server: Server, token: str, texts: Iterator[str]) -> FirstTokens:
    """On a quiet server, while documents come in, and while they are indexed."""
    asking, adding = Client(server, token), Client(server, token)
    for _ in range(5):
        asking.first_token()
    quiet = [asking.first_token() for _ in range(TURNS)]
    project = adding.project()
    adding.add(project, "Long", "\n\n".join(itertools.islice(texts, INGESTED)))
    begun = time.perf_counter()

    def add_all() -> None:
        for text in itertools.islice(texts, INGESTED):
            adding.add(project, "-", text)

    thread = threading.Thread(target=add_all)
    thread.start()
    sending = []
    while thread.is_alive():
        sending.append(asking.first_token())
    thread.join()
    sent = INGESTED / (time.perf_counter() - begun)
    indexed = []
    while asking.pending(project):
        indexed += [asking.first_token() for _ in range(TURNS)]
    found = INGESTED / (time.perf_counter() - begun)
    return FirstTokens(quiet, sending, indexed, sent, found)


def with_embedder(report: Report, database: str, collection: Collection) -> None:
    texts = [f"{title}\n{text}" for title, text in collection.documents.values()]
    with Workplace() as place, latent.serving(texts) as address:
        url = place.database(database)
        server = place.workroom(
            DATABASE_URL=url,
            OPENAI_BASE_URL=address,
            OPENAI_MODELS=latent.MODEL,
            EMBEDDING_MODEL=f"openai/{latent.MODEL}",
        )
        _, token = register(server)
        report.tell(
            "mean average precision, with an embedder",
            mean_average_precision(Client(server, token), collection, embeds=url),
            at_least=LEAST_MAP,
        )


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("folder", type=Path, help="of the Cranfield collection")
    arguments.add_argument(
        "--database", choices=("sqlite", "postgresql"), default="sqlite"
    )
    arguments.add_argument("--embedder", action="store_true", help="with that alone")
    options = arguments.parse_args()
    collection = Collection.read(options.folder)
    report = Report(options)
    if options.embedder:
        with_embedder(report, options.database, collection)
        report.end()
        return
    with Workplace() as place:
        url = place.database(options.database)
        server = place.workroom(DATABASE_URL=url)
        user, token = register(server)
        client = Client(server, token)
        texts = made_up(collection, seed=1)
        report.tell(
            "mean average precision",
            mean_average_precision(client, collection),
            at_least=LEAST_MAP,
        )
        for count in (FEW, MANY):
            project = asyncio.run(seed(url, user, texts, count))
            client = Client(server, token)  # the other one was idle for too long
            took = search_seconds(client, project, collection)
            for share in (0.5, 0.95):
                what = f"search in {count} chunks: seconds, p{share * 100:g}"
                report.tell(what, quantile(took, share), at_most=MOST_SECONDS)
        report.tell("ingest by a job: chunks a second", ingest(client, texts))
        measured = first_tokens(server, token, texts)
        report.tell("documents a second: sent", measured.sent)
        report.tell("documents a second: sent and indexed", measured.found)
        for share in (0.5, 0.95):
            quiet = quantile(measured.quiet, share) * 1e3
            for what, took in (
                ("come in", measured.sending),
                ("are indexed", measured.indexing),
            ):
                report.compare(
                    f"first token, ms, quiet and while documents {what}, "
                    f"p{share * 100:g}",
                    [quiet],
                    [quantile(took, share) * 1e3],
                )
    report.end()


if __name__ == "__main__":
    main()
