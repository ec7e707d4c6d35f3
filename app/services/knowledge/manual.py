"""Workroom's manual, which the guide quotes: documents of a project without members.

Nobody sees the project, or writes into it: who may is its owner, and it has none. The
first question after an upgrade brings its documents up to date, so an installation that
never asks the guide has none of it, and no start waits for it.
"""

import asyncio
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from uuid import UUID, uuid5

from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from app.core.config import ROOT
from app.core.database import Database
from app.integrations.llm.tokens import estimate_tokens
from app.integrations.search.lexical import Frequency, Hit
from app.integrations.search.passages import Document, Passage, section_at
from app.models import Project, ProjectDocument
from app.services.knowledge.counts import Counts
from app.services.knowledge.indexing import index_at_once
from app.services.knowledge.ranking import corpus_of
from app.services.knowledge.search import Found, search
from app.services.knowledge.terms import key_of

PROJECT = UUID(int=1)

NOT_THE_MANUAL = {"adr", "benchmarks.md"}
"""What is written for those who build Workroom: decisions, and measured figures."""


class Manual:
    """The Markdown files of a folder, but for `NOT_THE_MANUAL`; read once a process.

    A page's id is made of its name and text, so another text is another document, and
    all is up to date where the ids are the same. A page is in the index as a whole, or
    not at all, whatever dies and however many processes are at it.
    """

    def __init__(self, database: Database, docs: Path = ROOT / "docs") -> None:
        self._database = database
        self._docs = docs
        self._pages: Mapping[UUID, Document] = {}
        self._updating = asyncio.Lock()
        self._counts = Counts()

    async def search(self, query: str, limit: int) -> list[Hit]:
        pages = await self._current()
        async with self._database.unit_of_work(read_only=True) as session:
            found = await search(
                session, PROJECT, query, limit=limit, counts=self._counts
            )
        # Another version's process may change the pages just now.
        return [
            _hit(pages[one.document_id], one)
            for one in found
            if one.document_id in pages
        ]

    async def frequency(self, terms: Collection[str]) -> Frequency:
        await self._current()
        keys = {key_of(PROJECT, term): term for term in terms}
        async with self._database.unit_of_work(read_only=True) as session:
            corpus = await corpus_of(session, PROJECT)
            having = await self._counts.all(session, keys)
        return Frequency(
            corpus.chunks, {keys[key]: count for key, count in having.items()}
        )

    async def _current(self) -> Mapping[UUID, Document]:
        """The pages, all of them in the index."""
        async with self._updating:
            if not self._pages:
                self._pages = await asyncio.to_thread(_read, self._docs)
            there = await self._ready()
            if there != self._pages.keys():
                await self._add(self._pages.keys() - there)
                await self._remove(there - self._pages.keys())
        return self._pages

    async def _ready(self) -> set[UUID]:
        pages = select(ProjectDocument.id).where(
            ProjectDocument.project_id == PROJECT, ProjectDocument.state == "ready"
        )
        async with self._database.unit_of_work(read_only=True) as session:
            return set(await session.scalars(pages))

    async def _add(self, ids: set[UUID]) -> None:
        with suppress(IntegrityError):  # where another process has done it
            await self._store(ids)
        for page in ids:
            await index_at_once(self._database, page, PROJECT, self._pages[page])

    async def _store(self, ids: set[UUID]) -> None:
        async with self._database.unit_of_work() as session:
            if await session.get(Project, PROJECT) is None:
                session.add(Project(id=PROJECT, name="Workroom's manual"))
            there = await session.scalars(
                select(ProjectDocument.id).where(ProjectDocument.project_id == PROJECT)
            )
            session.add_all(
                _document(page, self._pages[page]) for page in ids - set(there)
            )

    async def _remove(self, ids: set[UUID]) -> None:
        for page in ids:  # one by one: a page has thousands of postings
            async with self._database.unit_of_work() as session:
                await session.execute(
                    delete(ProjectDocument).where(ProjectDocument.id == page)
                )


def _read(docs: Path) -> dict[UUID, Document]:
    """The pages, each under its id."""
    pages = {}
    for path in sorted(docs.rglob("*.md")):
        relative = path.relative_to(docs)
        if relative.parts[0] not in NOT_THE_MANUAL:
            source = (docs.name / relative).as_posix()
            text = path.read_text(encoding="utf-8")
            pages[uuid5(PROJECT, f"{source}\n{text}")] = Document(source, text)
    return pages


def _document(key: UUID, page: Document) -> ProjectDocument:
    return ProjectDocument(
        id=key,
        project_id=PROJECT,
        title=page.source,
        text=page.text,
        characters=len(page.text),
        tokens=estimate_tokens(page.text),
    )


def _hit(page: Document, found: Found) -> Hit:
    headings, anchor = section_at(page, found.start)
    passage = Passage(
        source=page.source,
        headings=headings,
        anchor=anchor,
        text=found.text,
        start=found.start,
        end=found.end,
        lead=found.lead,
    )
    return Hit(passage, found.share)
