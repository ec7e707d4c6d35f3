"""The guide's manual, in the index that projects' documents are in."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest
from sqlalchemy import delete, select, update

from app.core.config import Settings
from app.core.database import Database
from app.integrations.search.lexical import Frequency
from app.models import Chunk, ProjectDocument
from app.services.knowledge.manual import PROJECT, Manual
from tests.conftest import Server
from tests.integration.operations import PRIVATE
from tests.integration.things import make_things

TRAINS = "# Trains\n\n## When?\n\nThe train leaves at nine.\n"


@pytest.fixture
def docs(tmp_path: Path) -> Path:
    docs = tmp_path / "docs"
    (docs / "adr").mkdir(parents=True)
    (docs / "trains.md").write_text(TRAINS)
    (docs / "ships.md").write_text("# Ships\n\nA ship leaves at noon.\n")
    (docs / "adr" / "0001-trains.md").write_text("# Trains\n\nWhy trains leave.\n")
    (docs / "benchmarks.md").write_text("# Trains\n\nHow fast trains leave.\n")
    return docs


async def find(manual: Manual, query: str) -> list[str]:
    return [hit.passage.text for hit in await manual.search(query, 10)]


async def pages(database: Database) -> dict[str, UUID]:
    """The documents that are found, by their titles."""
    async with database.unit_of_work(read_only=True) as session:
        found = await session.scalars(
            select(ProjectDocument).where(ProjectDocument.state == "ready")
        )
        return {page.title: page.id for page in found}


async def test_it_is_found_with_its_place_without_decisions_and_figures(
    database: Database, docs: Path
) -> None:
    manual = Manual(database, docs)

    hit = (await manual.search("When does the train leave?", 10))[0]

    assert (hit.passage.source, hit.passage.anchor) == ("docs/trains.md", "when")
    assert hit.passage.headings == ("Trains", "When?")
    assert TRAINS[hit.passage.start : hit.passage.end] == hit.passage.text
    assert 0 < hit.score <= 1
    assert set(await pages(database)) == {"docs/trains.md", "docs/ships.md"}


async def test_words_that_are_nowhere_lower_the_score(
    database: Database, docs: Path
) -> None:
    manual = Manual(database, docs)

    (known,) = await manual.search("nine", 10)
    (partly,) = await manual.search("nine zebras of the Serengeti", 10)

    assert partly.score < known.score / 2
    assert await manual.search("zebras", 10) == []


async def test_it_tells_how_frequent_words_are(database: Database, docs: Path) -> None:
    manual = Manual(database, docs)

    found = await manual.frequency({"leav", "train", "zebra"})

    assert found == Frequency(2, {"leav": 2, "train": 1})


async def test_another_version_finds_its_own_pages_and_no_older_ones(
    database: Database, docs: Path
) -> None:
    await find(Manual(database, docs), "train")
    before = await pages(database)
    (docs / "trains.md").write_text("# Trains\n\nThe train leaves at ten.\n")
    (docs / "ships.md").unlink()
    (docs / "planes.md").write_text("# Planes\n\nA plane leaves at once.\n")
    newer = Manual(database, docs)

    assert await find(newer, "train") == ["The train leaves at ten."]
    assert await find(newer, "ship") == []
    assert await find(newer, "plane") == ["A plane leaves at once."]

    (docs / "planes.md").unlink()
    (docs / "trains.md").write_text(TRAINS)
    assert await find(Manual(database, docs), "train") == ["The train leaves at nine."]
    assert await pages(database) == {"docs/trains.md": before["docs/trains.md"]}


async def test_without_pages_it_finds_nothing(
    database: Database, docs: Path, tmp_path: Path
) -> None:
    await find(Manual(database, docs), "train")

    assert await find(Manual(database, tmp_path / "none"), "train") == []


async def test_many_first_questions_in_several_processes_index_it_once(
    database: Database, docs: Path, settings_with: Callable[..., Settings]
) -> None:
    for number in range(20):
        (docs / f"{number}.md").write_text(f"# Page {number}\n\nA train, a ship.\n")
    other = Database(settings_with())
    processes = [Manual(database, docs), Manual(other, docs)]
    try:
        found = await asyncio.gather(
            *(find(process, "nine trains") for process in processes * 3)
        )
    finally:
        await other.close()

    assert all("The train leaves at nine." in texts for texts in found)
    async with database.unit_of_work(read_only=True) as session:
        chunks = (await session.scalars(select(Chunk.document_id))).all()
    assert sorted(chunks) == sorted((await pages(database)).values())


async def test_what_a_dead_process_left_undone_is_done(
    database: Database, docs: Path
) -> None:
    """It had stored the page, and died before its passages were."""
    await find(Manual(database, docs), "train")
    page = (await pages(database))["docs/trains.md"]
    async with database.unit_of_work() as session:
        await session.execute(delete(Chunk).where(Chunk.document_id == page))
        await session.execute(
            update(ProjectDocument)
            .where(ProjectDocument.id == page)
            .values(state="pending", chunks=0, terms=0)
        )

    assert await find(Manual(database, docs), "train") == ["The train leaves at nine."]


async def test_nobody_sees_it_or_writes_into_it(server: Server) -> None:
    """A1, A2: it is a project like others, and nobody is in it."""
    ada = await make_things(server, "ada")  # she has asked the guide
    page = (await pages(server.runtime.database))["docs/QUICKSTART.md"]
    theirs = replace(ada, project=str(PROJECT), document=str(page))
    of_projects = [one for one in PRIVATE if "{project}" in one.path]
    assert len(of_projects) > 10  # else they are named otherwise

    for operation in of_projects:
        answer = await operation.send(ada.client, theirs)
        assert (operation.name, answer.status) == (operation.name, 404)
    chat = await ada.client.post("/chats", json={"project_id": str(PROJECT)})
    assert chat.status == 404
    moved = await ada.client.patch(
        f"/projects/{ada.project}/documents/{page}", json={"text": "Mine."}
    )
    assert moved.status == 404
    listed = (await ada.client.get("/projects")).json["items"]
    assert [one["id"] for one in listed] == [ada.project]
