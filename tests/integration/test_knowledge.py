"""The index of a project's documents: what comes in, what goes out, what is found."""

import asyncio
from math import log
from uuid import UUID

import pytest
from sqlalchemy import func, select, update

from app.core.database import Database
from app.core.exceptions import UnavailableError
from app.models import Chunk, File, FileText, Posting, Project, ProjectDocument, User
from app.services.knowledge import counts as counts_module
from app.services.knowledge import indexing, ranking
from app.services.knowledge.counts import Counts
from app.services.knowledge.indexing import Indexing
from app.services.knowledge.search import Found, search
from app.services.knowledge.terms import key_of
from tests.client import Client
from tests.conftest import Server
from tests.integration.rows import settled
from tests.integration.test_projects import paste, project_of, texts

LONG = "\n\n".join(f"Paragraph {n}: the {n}th of many zebras." for n in range(900))


async def a_project(database: Database) -> UUID:
    async with database.unit_of_work() as session:
        user = User(email="ada@example.com", password_hash="!")
        session.add(user)
        await session.flush()
        project = Project(user_id=user.id, name="A project")
        session.add(project)
    return project.id


async def pending(
    database: Database, project: UUID, text: str = LONG, title: str = "A note"
) -> UUID:
    async with database.unit_of_work() as session:
        document = ProjectDocument(project_id=project, title=title)
        session.add(document)
        await indexing.take_in(session, document, text)
    return document.id


async def add(
    database: Database, project: UUID, text: str, title: str = "A note"
) -> UUID:
    document = await pending(database, project, text, title)
    await Indexing(database, rest=0).index(document)
    return document


async def find(
    database: Database, project: UUID, query: str, limit: int = 10
) -> list[Found]:
    async with database.unit_of_work(read_only=True) as session:
        return await search(session, project, query, limit=limit, counts=Counts())


async def state_of(database: Database, document: UUID) -> ProjectDocument:
    async with database.unit_of_work(read_only=True) as session:
        found = await session.get(ProjectDocument, document)
        assert found is not None
        return found


async def begun(database: Database, document: UUID) -> ProjectDocument:
    """Wait until a part of it is indexed."""
    while True:
        found = await state_of(database, document)
        if found.indexed:
            return found
        await asyncio.sleep(0)


async def count(database: Database, table: type) -> int:
    async with database.unit_of_work(read_only=True) as session:
        return int(await session.scalar(select(func.count()).select_from(table)) or 0)


# Finding ----------------------------------------------------------------------------


async def test_what_is_found_is_a_slice_of_its_document(server: Server) -> None:
    ada = await server.client()
    project = await project_of(ada)
    table = "| name | stripes |\n| --- | --- |\n" + "".join(
        f"| Zebra {n} | has {n} stripes and many things to say about them |\n"
        for n in range(60)
    )
    text = (
        f"# Zebras\n\nZebras have stripes.\n\n## A table\n\n{table}\n\n```\nzebra()\n"
    )
    document = await paste(ada, project, text)
    path = f"/projects/{project}"

    found = await ada.get(f"{path}/search", params={"q": "zebra", "limit": 100})

    source = (await ada.get(f"{path}/documents/{document}")).json["text"]
    items = found.json["items"]
    assert len(items) > 10
    assert all(source[i["start"] : i["end"]] == i["text"] for i in items)
    assert {i["lead"] for i in items} == {"", "| name | stripes |\n| --- | --- |"}
    assert items[0]["document"] == {"id": document, "title": "A note"}
    scores = [i["score"] for i in items]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Call getUserName() first.", "user name"),
        ("Call getUserName() first.", "getusername"),
        ("Set MAX_BODY_BYTES.", "body bytes"),
        ("Running quickly.", "run"),
        ("東京の天気", "天気"),
        ("A \ufb01ne day.", "fine"),
    ],
)
async def test_words_are_found_by_their_parts_and_stems(
    database: Database, text: str, query: str
) -> None:
    project = await a_project(database)
    await add(database, project, text)
    await add(database, project, "Of something else.")

    assert [one.text for one in await find(database, project, query)] == [text]


@pytest.mark.parametrize("query", ["", "the", "???", "'; DROP TABLE chunks", "\x00"])
async def test_a_query_that_means_nothing_finds_nothing(
    database: Database, query: str
) -> None:
    project = await a_project(database)
    await add(database, project, "Zebras have stripes.")

    assert await find(database, project, query) == []


async def test_what_has_more_of_the_rare_words_is_better(database: Database) -> None:
    project = await a_project(database)
    for n in range(30):
        await add(database, project, f"The common word, number {n}.")
    await add(database, project, "The common word beside a zebra.")

    first, *others = await find(database, project, "common zebra")

    assert first.text == "The common word beside a zebra."
    assert len(others) == 9


async def test_a_short_exact_query_is_answered_by_what_it_names(
    database: Database,
) -> None:
    project = await a_project(database)
    for n in range(40):
        await add(database, project, f"Error E10{n:02} means that valve {n} is stuck.")
    # Much like the best one, and not what was asked for.
    await add(database, project, "Valve stuck valve stuck valve stuck: an error, too.")

    for query in ("E1017", "error E1017", "what does error E1017 mean for valves"):
        first, *_ = await find(database, project, query)
        assert first.text.startswith("Error E1017"), query


async def test_words_of_the_best_passages_decide_between_equals(
    database: Database,
) -> None:
    project = await a_project(database)
    for n in range(20):
        await add(database, project, f"Something about farm {n}.")
    await add(database, project, "Striped horses graze in the savanna of Kenya.")
    await add(database, project, "Striped horses graze in the savanna at night.")
    await add(database, project, "Striped shirts cost eleven.")
    await add(database, project, "Striped beasts love savanna.")

    plain = await find(database, project, "striped")
    found = await find(database, project, "striped horses graze")

    equals = ["Striped shirts cost eleven.", "Striped beasts love savanna."]
    assert [one.text for one in plain][:2] == equals
    assert [one.text for one in found][2:] == equals[::-1]


async def test_what_answers_a_question_tells_more_than_what_shares_a_word(
    database: Database,
) -> None:
    """The latter are more, and say more often what else they are about."""
    project = await a_project(database)
    for n in range(30):
        await add(database, project, f"Something about farm {n}.")
    answer = "Airlock alarms open the hatch."
    for text in (answer, *["Alarm trumpet trumpet."] * 4):
        await add(database, project, text)
    for thing in ("trumpet", "hatch"):
        await add(database, project, f"Farm alarm: {thing}, cows, pigs, geese.")

    found = await find(database, project, "when do airlock alarms open")

    texts = [one.text for one in found]
    assert texts[0] == answer
    assert [text for text in texts if "cows" in text] == [
        "Farm alarm: hatch, cows, pigs, geese.",
        "Farm alarm: trumpet, cows, pigs, geese.",
    ]


async def test_common_terms_count_where_they_are_not_scanned(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await a_project(database)
    for n in range(30):
        await add(database, project, f"common {'zebra' if n % 3 else 'lion'} {n * 's'}")
    await add(database, project, "zebra common zebra common")
    everything = await find(database, project, "common zebra lion", limit=40)

    monkeypatch.setattr(ranking, "_MOST_SCANNED", 15)
    scanned = await find(database, project, "common zebra lion", limit=40)

    # Lions alone are scanned for; they have the scores that they had.
    lions = [one for one in everything if "lion" in one.text]
    assert [one.text for one in scanned] == [one.text for one in lions]
    assert len(lions) < len(everything)


async def test_counts_of_frequent_terms_alone_are_remembered(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counts_module, "_FREQUENT", 2)
    project, counts = await a_project(database), Counts()
    often, seldom, never = (key_of(project, t) for t in ("zebra", "lion", "shark"))

    async def counted(counts: Counts) -> list[dict[int, int]]:
        keys = [often, seldom, never]
        async with database.unit_of_work(read_only=True) as session:
            return [await counts.all(session, keys), await counts.few(session, keys)]

    for text in ("A zebra.", "A zebra and a lion."):
        await add(database, project, text)
    before = await counted(counts)
    await add(database, project, "A zebra, a lion and a shark.")

    assert before == [{often: 2, seldom: 1}] * 2
    assert await counted(counts) == [{often: 2, seldom: 2, never: 1}] * 2
    assert await counted(Counts()) == [{often: 3, seldom: 2, never: 1}] * 2


async def test_scores_are_those_of_the_formula(database: Database) -> None:
    """On both databases, so they rank alike."""
    project = await a_project(database)
    for text in ("zebra zebra lion", "zebra tiger", "lion lion lion tiger bear"):
        await add(database, project, text, title="-")
    average = (3 + 2 + 5) / 3
    rarity = log(1 + (3 - 2 + 0.5) / (2 + 0.5))  # of zebras as of lions

    def share(count: int, length: int) -> float:
        return count / (count + 1.2 * (1 - 0.75 + 0.75 * length / average))

    found = await find(database, project, "zebra lion")

    assert [one.text for one in found] == [
        "zebra zebra lion",
        "lion lion lion tiger bear",
        "zebra tiger",
    ]
    assert [one.score for one in found] == pytest.approx(
        [
            rarity * (share(2, 3) + share(1, 3)),
            rarity * share(3, 5),
            rarity * share(1, 2),
        ]
    )


# Coming in --------------------------------------------------------------------------


async def test_what_changes_is_found_as_it_is_now(server: Server) -> None:
    ada = await server.client()
    project = await project_of(ada)
    document = await paste(ada, project, "Zebras have stripes.")
    path = f"/projects/{project}/documents/{document}"

    assert await texts(ada, project, "zebras") == ["Zebras have stripes."]
    changed = await ada.patch(path, json={"text": "Lions have manes."})
    assert (changed.json["state"], changed.json["progress"]) == ("pending", 0)
    assert await texts(ada, project, "zebras") == []
    await settled(server)
    assert await texts(ada, project, "zebras") == []
    assert await texts(ada, project, "lions") == ["Lions have manes."]
    renamed = await ada.patch(path, json={"title": "Of cats"})
    assert renamed.json["title"] == "Of cats"
    await settled(server)
    assert await texts(ada, project, "cats") == ["Lions have manes."]
    assert (await ada.delete(path)).status == 204
    assert await texts(ada, project, "lions") == []
    assert await count(server.runtime.database, Posting) == 0


async def test_a_text_is_indexed_by_a_job(server: Server) -> None:
    ada = await server.client()
    project = await project_of(ada)
    form = {"title": "Long", "text": LONG}

    added = await ada.post(f"/projects/{project}/documents", json=form)
    await settled(server)

    assert (added.json["state"], added.json["progress"]) == ("pending", 0)
    path = f"/projects/{project}/documents/{added.json['id']}"
    ready = (await ada.get(path)).json
    assert (ready["state"], ready["progress"]) == ("ready", 1)
    assert ready["chunks"] == await count(server.runtime.database, Chunk) > 10
    (first, *_) = await texts(ada, project, "paragraph 899")
    assert "Paragraph 899:" in first


async def test_a_text_that_grows_or_shrinks_leaves_nothing_of_before(
    server: Server,
) -> None:
    ada = await server.client()
    project = await project_of(ada)
    document = await paste(ada, project, "Lions have manes.")
    path = f"/projects/{project}/documents/{document}"

    for text in (LONG, LONG * 9, "Bears have neither."):
        await ada.patch(path, json={"text": text})
        await settled(server)
        found = await find(
            server.runtime.database, UUID(project), "zebras lions bears", limit=100
        )
        assert found
        assert all(text[one.start : one.end] == one.text for one in found)
    assert await count(server.runtime.database, Chunk) == 1
    await ada.patch(path, json={"text": LONG * 9})
    await settled(server)
    assert (await ada.delete(path)).status == 204
    assert (await ada.get(path)).status == 404
    assert await texts(ada, project, "zebras") == []
    await settled(server)
    assert await count(server.runtime.database, ProjectDocument) == 0
    assert await count(server.runtime.database, Posting) == 0


async def test_a_deleted_project_leaves_nothing(server: Server) -> None:
    ada = await server.client()
    project = await project_of(ada)
    await paste(ada, project, LONG)
    chat = await ada.chat(project_id=project)

    await ada.delete(f"/projects/{project}")
    await settled(server)

    for table in (Project, ProjectDocument, Chunk, Posting):
        assert await count(server.runtime.database, table) == 0
    assert (await ada.get(f"/chats/{chat}")).json["project_id"] is None


async def test_a_document_that_is_not_ready_is_not_found(database: Database) -> None:
    project = await a_project(database)
    document = await add(database, project, "Zebras have stripes.")
    await add(database, project, "Zebras have hooves.")

    async with database.unit_of_work() as session:
        await session.execute(
            update(ProjectDocument)
            .where(ProjectDocument.id == document)
            .values(state="indexing")
        )

    (found,) = await find(database, project, "zebras")
    assert found.text == "Zebras have hooves."


async def test_a_job_that_died_half_way_is_done_again_from_the_beginning(
    database: Database,
) -> None:
    """TRUST F4."""
    project = await a_project(database)
    document = await pending(database, project)
    dying = asyncio.create_task(Indexing(database).index(document))
    half = await begun(database, document)
    dying.cancel()
    await asyncio.gather(dying, return_exceptions=True)
    assert 0 < half.progress < 1
    assert half.state == "indexing"

    await Indexing(database).index(document)

    ready = await state_of(database, document)
    assert (ready.state, ready.progress) == ("ready", 1)
    assert ready.chunks == await count(database, Chunk)
    found = await find(database, project, "zebras", limit=1000)
    assert len({one.start for one in found}) == len(found) == ready.chunks


async def test_two_jobs_for_one_document_index_it_once(database: Database) -> None:
    """TRUST F4. A lease that ran out is no proof that its holder is dead."""
    project = await a_project(database)
    document = await pending(database, project)

    await asyncio.gather(*(Indexing(database).index(document) for _ in range(3)))

    ready = await state_of(database, document)
    assert ready.state == "ready"
    assert ready.chunks == await count(database, Chunk)


@pytest.mark.parametrize("text", ["Lions alone.", LONG.replace("zebra", "lion")])
async def test_a_text_that_changes_while_it_is_indexed_is_the_new_one(
    database: Database, text: str
) -> None:
    project = await a_project(database)
    document = await pending(database, project)
    job = asyncio.create_task(Indexing(database).index(document))
    await begun(database, document)

    async with database.unit_of_work() as session:
        row = await session.get(ProjectDocument, document, with_for_update=True)
        assert row is not None
        await indexing.take_in(session, row, text)
    await job
    assert (await state_of(database, document)).state == "pending"
    await Indexing(database).index(document)

    found = await find(database, project, "lions zebras", limit=1000)
    assert all(text[one.start : one.end] == one.text for one in found)
    assert len(found) == await count(database, Chunk) >= 1


async def test_a_job_that_comes_late_leaves_what_is_newer(database: Database) -> None:
    project = await a_project(database)
    document = await pending(database, project)
    job = Indexing(database)
    taken = await job._take(document)
    assert taken is not None
    async with database.unit_of_work() as session:
        row = await session.get(ProjectDocument, document, with_for_update=True)
        assert row is not None
        await indexing.take_in(session, row, "Lions alone.")

    assert await job._add(taken, [], state="ready") is False
    await job.index(document)

    assert [one.text for one in await find(database, project, "lions")] == [
        "Lions alone."
    ]


async def test_what_cannot_be_indexed_now_says_so_and_is_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await a_project(database)
    document = await pending(database, project)

    def fail(*_: object, **__: object) -> None:
        raise UnavailableError("The database is away.")

    with monkeypatch.context() as broken:
        broken.setattr(indexing, "_adding", fail)
        with pytest.raises(UnavailableError):
            await Indexing(database).index(document)
    assert (await state_of(database, document)).state == "failed"

    await Indexing(database).index(document)

    assert (await state_of(database, document)).state == "ready"


# Files ------------------------------------------------------------------------------


async def a_file(server: Server, client: Client, text: str, pages: list[int]) -> str:
    me = UUID((await client.get("/auth/me")).json["id"])
    file = File(
        user_id=me,
        name="zebras.pdf",
        mime="application/pdf",
        kind="document",
        size=len(text),
        sha256=f"{hash(text):064x}"[-64:],
        status="ready",
        has_text=True,
    )
    async with server.runtime.database.unit_of_work() as session:
        session.add(file)
        await session.flush()
        session.add(FileText(file_id=file.id, text=text, pages=pages))
    return str(file.id)


async def test_a_files_text_is_found_with_its_page_until_the_file_is_deleted(
    server: Server,
) -> None:
    ada = await server.client()
    project = await project_of(ada)
    first, second = "word " * 399, "Zebras have stripes."
    file = await a_file(server, ada, f"{first}\n\n{second}", [0, len(first) + 2])
    path = f"/projects/{project}"

    added = await ada.post(f"{path}/documents", json={"file_id": file})
    again = await ada.post(f"{path}/documents", json={"file_id": file})
    edit = {"json": {"text": "Lions."}}
    edited = await ada.patch(f"{path}/documents/{added.json['id']}", **edit)
    await settled(server)

    assert (added.status, added.json["title"]) == (201, "zebras.pdf")
    assert (again.status, again.json["code"]) == (409, "document_already")
    assert (edited.status, edited.json["code"]) == (409, "text_of_a_file")
    found = await ada.get(f"{path}/search", params={"q": "stripes"})
    (item,) = found.json["items"]
    assert (item["text"], item["page"]) == (second, 2)
    assert (await ada.delete(f"/files/{file}")).status == 204
    assert await texts(ada, project, "stripes") == []
    assert (await ada.get(f"{path}/documents")).json["items"] == []


async def test_a_file_of_somebody_else_is_no_document(server: Server) -> None:
    """TRUST A1."""
    ada, bob = await server.client("ada"), await server.client("bob")
    project = await project_of(bob)
    file = await a_file(server, ada, "Zebras have stripes.", [])

    added = await bob.post(f"/projects/{project}/documents", json={"file_id": file})

    assert added.status == 404
    assert await texts(bob, project, "zebras") == []
