"""Files: uploaded, looked into, read, deleted (TRUST U1, F11)."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from io import BytesIO
from typing import Any
from uuid import UUID
from zipfile import ZipFile

import aiohttp
import pytest
from sqlalchemy import func, select, update

from app.core.database import utcnow
from app.integrations.scanning.clamd import Clamd
from app.models import File, FileText, Job
from app.services import job as jobs
from app.services.file import places
from tests import samples
from tests.client import Client
from tests.conftest import Server, on_sqlite
from tests.fakes.clamd import EICAR, FakeClamd
from tests.fakes.s3 import VARIABLES, s3_server
from tests.integration.rows import settled
from tests.integration.uploading import (
    TEXT,
    agree,
    ready,
    stored_keys,
)

SIZE = len(TEXT)
LATER = utcnow() + timedelta(days=1)


@pytest.fixture
async def ada(server: Server) -> Client:
    return await server.client("ada")


# What is taken


async def test_a_file_is_pending_then_ready_and_comes_back_as_it_was(
    server: Server, ada: Client
) -> None:
    uploaded = await ada.upload(TEXT, "Fahrplan Zürich.md")

    assert uploaded.status == 201
    assert uploaded.json["status"] in {"pending", "ready"}
    await settled(server)
    file = (await ada.get(f"/files/{uploaded.json['id']}")).json
    assert {
        name: file[name] for name in ("name", "mime", "kind", "size", "status")
    } == {
        "name": "Fahrplan Zürich.md",
        "mime": "text/markdown",
        "kind": "document",
        "size": len(TEXT),
        "status": "ready",
    }
    assert file["sha256"] == hashlib.sha256(TEXT).hexdigest()
    assert (await ada.get(f"/files/{file['id']}/content")).body == TEXT
    text = (await ada.get(f"/files/{file['id']}/text")).json
    assert text == {"name": "Fahrplan Zürich.md", "text": TEXT.decode(), "pages": []}
    assert await agree(server)


@pytest.mark.parametrize(
    ("content", "name", "told"),
    [
        (samples.image("PNG"), "a.png", ("image/png", "image")),
        (samples.image("JPEG"), "really.png", ("image/jpeg", "image")),
        (samples.image("GIF"), "a.gif", ("image/gif", "image")),
        (samples.image("WEBP"), "a.webp", ("image/webp", "image")),
        (samples.pdf("One", "Two"), "a.pdf", ("application/pdf", "document")),
        (samples.word(), "a.docx", ("wordprocessingml.document", "document")),
        (samples.sheet(), "a.xlsx", ("spreadsheetml.sheet", "data")),
        (samples.slides("One"), "a.pptx", ("presentationml.presentation", "document")),
        (b"City,Price\nBern,42\n", "a.csv", ("text/csv", "data")),
        (b'{"city": "Bern"}', "a.json", ("application/json", "data")),
        (b"print('Bern')", "a.py", ("text/plain", "document")),
        (b"<p>Bern</p>", "a.html", ("text/html", "document")),
        (b"<svg/>", "a.svg", ("image/svg+xml", "document")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@on_sqlite
async def test_a_type_is_told_by_content(
    server: Server, ada: Client, content: bytes, name: str, told: tuple[str, str]
) -> None:
    """TRUST U1: type by content, not by name."""
    file = await ready(server, ada, content, name)

    assert file["status"] == "ready", file["reason"]
    assert file["mime"].endswith(told[0])
    assert file["kind"] == told[1]
    assert await agree(server)


async def test_an_image_has_a_thumbnail_and_no_text(
    server: Server, ada: Client
) -> None:
    file = await ready(server, ada, samples.image())

    thumbnail = await ada.get(f"/files/{file['id']}/thumbnail")
    text = await ada.get(f"/files/{file['id']}/text")

    assert (file["width"], file["height"]) == (640, 480)
    assert (thumbnail.status, thumbnail.headers["Content-Type"]) == (200, "image/webp")
    assert thumbnail.body.startswith(b"RIFF")
    assert (text.status, text.json["errors"][0]["path"]) == (422, "file_id")


async def test_a_pdf_has_pages(server: Server, ada: Client) -> None:
    file = await ready(server, ada, samples.pdf("First words", "Second words"))

    text = (await ada.get(f"/files/{file['id']}/text")).json

    assert file["pages"] == 2
    assert text["text"][text["pages"][1] :].strip() == "Second words"


async def test_lists_run_from_the_newest_and_hold_ones_own_alone(
    server: Server, ada: Client
) -> None:
    grace = await server.client("grace")
    for number in range(3):
        await ada.upload(f"file {number}".encode(), f"{number}.txt")
    await grace.upload(b"another's", "grace.txt")

    first = (await ada.get("/files", params={"limit": 2})).json
    rest = (await ada.get("/files", params={"cursor": first["next_cursor"]})).json

    assert [one["name"] for one in first["items"]] == ["2.txt", "1.txt"]
    assert [one["name"] for one in rest["items"]] == ["0.txt"]
    assert rest["next_cursor"] is None


async def test_a_file_is_renamed(server: Server, ada: Client) -> None:
    file = await ready(server, ada, TEXT, "a.txt")

    renamed = await ada.patch(f"/files/{file['id']}", json={"name": "b.txt"})
    refused = await ada.patch(f"/files/{file['id']}", json={"name": "../b.txt"})

    assert (renamed.status, renamed.json["name"]) == (200, "b.txt")
    assert refused.status == 422


# The same bytes


async def test_the_same_bytes_are_the_same_file(server: Server, ada: Client) -> None:
    file = await ready(server, ada, TEXT, "a.txt")

    again = await ada.upload(TEXT, "b.txt")
    others = await (await server.client("grace")).upload(TEXT, "a.txt")

    assert (again.status, again.json["id"]) == (200, file["id"])
    assert (others.status, others.json["id"] != file["id"]) == (201, True)
    assert await agree(server)


async def test_the_same_bytes_sent_at_once_are_stored_once(
    server: Server, ada: Client
) -> None:
    answers = await asyncio.gather(*(ada.upload(TEXT, f"{n}") for n in range(6)))

    assert sorted(answer.status for answer in answers) == [200] * 5 + [201]
    assert len({answer.json["id"] for answer in answers}) == 1
    assert await agree(server)


async def test_what_was_rejected_may_be_sent_again(server: Server, ada: Client) -> None:
    rejected = await ready(server, ada, samples.flood(), "a.png")

    again = await ada.upload(samples.flood(), "a.png")

    assert rejected["status"] == "rejected"
    assert (again.status, again.json["id"] != rejected["id"]) == (201, True)
    assert await agree(server)


# Reading


@pytest.mark.parametrize(
    ("wanted", "status", "answered"),
    [
        ("bytes=0-5", 206, (TEXT[:6], f"bytes 0-5/{SIZE}")),
        ("bytes=7-", 206, (TEXT[7:], f"bytes 7-{SIZE - 1}/{SIZE}")),
        ("bytes=-5", 206, (TEXT[-5:], f"bytes 24-28/{SIZE}")),
        ("bytes=20-9999", 206, (TEXT[20:], f"bytes 20-28/{SIZE}")),
        ("bytes=-9999", 206, (TEXT, f"bytes 0-28/{SIZE}")),
        ("bytes=0-", 206, (TEXT, f"bytes 0-28/{SIZE}")),
        ("lines=1-2", 200, (TEXT, None)),
        ("bytes=29-", 416, (None, f"bytes */{SIZE}")),
        ("bytes=5-2", 416, (None, f"bytes */{SIZE}")),
        ("bytes=-0", 416, (None, f"bytes */{SIZE}")),
        ("bytes=-", 416, (None, f"bytes */{SIZE}")),
        ("bytes=0-0,2-3", 416, (None, f"bytes */{SIZE}")),
        ("bytes=" + ",".join(["0-"] * 2000), 416, (None, f"bytes */{SIZE}")),
        ("bytes=" + "9" * 5000 + "-", 416, (None, f"bytes */{SIZE}")),
    ],
    ids=["first", "from", "last", "over", "all", "whole", "unit", "after", "turned",
         "none", "empty", "two", "many", "digits"],
)  # fmt: skip
@on_sqlite
async def test_a_range_is_read(
    ada: Client,
    wanted: str,
    status: int,
    answered: tuple[bytes | None, str | None],
) -> None:
    """TRUST F11: many Range specs are a 4xx."""
    file = (await ada.upload(TEXT, "a.txt")).json

    answer = await ada.get(f"/files/{file['id']}/content", headers={"Range": wanted})

    body, told = answered
    assert answer.status == status
    assert answer.headers.get("Content-Range") == told
    assert body is None or answer.body == body


@on_sqlite
async def test_a_part_is_only_added_to_the_same_file(ada: Client) -> None:
    path = f"/files/{(await ada.upload(TEXT, 'a.txt')).json['id']}/content"
    tag = (await ada.get(path)).headers["ETag"]
    part = {"Range": "bytes=0-5"}

    same = await ada.get(path, headers={**part, "If-Range": tag})
    another = await ada.get(path, headers={**part, "If-Range": '"another"'})
    known = await ada.get(path, headers={"If-None-Match": tag})

    assert (same.status, another.status, known.status) == (206, 200, 304)
    assert (another.body, known.body) == (TEXT, b"")


@pytest.mark.parametrize(
    ("name", "content", "disposition"),
    [
        ("a.html", b"<script>alert(1)</script>",
         "attachment; filename=\"a.html\"; filename*=UTF-8''a.html"),
        ("a.svg", b"<svg onload='alert(1)'/>",
         "attachment; filename=\"a.svg\"; filename*=UTF-8''a.svg"),
        ('ü";%.c', b"x",
         "attachment; filename=\"__;_.c\"; filename*=UTF-8''%C3%BC%22%3B%25.c"),
    ],
    ids=["html", "svg", "signs"],
)  # fmt: skip
@on_sqlite
async def test_a_file_is_only_ever_a_download(
    server: Server, ada: Client, name: str, content: bytes, disposition: str
) -> None:
    """TRUST U1: SVG and HTML are served only as a download with nosniff."""
    file = await ready(server, ada, content, "a.txt")
    await ada.patch(f"/files/{file['id']}", json={"name": name})

    answer = await ada.get(f"/files/{file['id']}/content")

    assert answer.headers["Content-Disposition"] == disposition
    assert answer.headers.getall("X-Content-Type-Options") == ["nosniff"]
    assert answer.headers.getall("Content-Security-Policy") == [
        "default-src 'none'; sandbox"
    ]
    assert answer.headers["Cache-Control"] == "private, no-cache"


async def test_content_that_storage_lost_is_told_before_an_answer_begins(
    server: Server, ada: Client
) -> None:
    file = await ready(server, ada, TEXT)
    await server.runtime.storage.delete(list(await stored_keys(server)))

    answer = await ada.get(f"/files/{file['id']}/content")

    assert (answer.status, answer.json["code"]) == (503, "object_missing")


async def test_a_key_needs_the_scope(server: Server, ada: Client) -> None:
    file = await ready(server, ada, TEXT)
    keys = {}
    for scope in ("files", "read", "chat"):
        made = await ada.post("/apikeys", json={"name": scope, "scopes": [scope]})
        client = server.anonymous()
        client.headers["Authorization"] = f"Bearer {made.json['key']}"
        keys[scope] = client

    reads = {s: (await c.get(f"/files/{file['id']}")).status for s, c in keys.items()}
    writes = {s: (await c.upload(b"by a key", s)).status for s, c in keys.items()}

    assert reads == {"files": 200, "read": 200, "chat": 403}
    assert writes == {"files": 201, "read": 403, "chat": 403}


# The end


async def test_a_deleted_file_is_gone_everywhere(server: Server, ada: Client) -> None:
    file = await ready(server, ada, samples.pdf("Some words"))
    assert len(await stored_keys(server)) == 2

    assert (await ada.delete(f"/files/{file['id']}")).status == 204
    await settled(server)

    assert await stored_keys(server) == set()
    assert (await ada.get(f"/files/{file['id']}")).status == 404
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        assert await session.scalar(select(func.count()).select_from(FileText)) == 0


async def test_a_sweep_deletes_what_no_row_names(
    server: Server, ada: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = await ready(server, ada, samples.image())
    owner = UUID((await ada.get("/users/me")).json["id"])

    async def orphan() -> AsyncIterator[bytes]:
        yield b"orphan"

    for place in (places.original, places.thumbnail):
        await server.runtime.storage.put(place(owner, UUID(int=7)), orphan())
    await server.runtime.files.sweeper.sweep()
    young = await stored_keys(server)
    monkeypatch.setattr("app.services.file.sweeping._YOUNG", timedelta(0))
    await server.runtime.files.sweeper.sweep()

    assert len(young) == 4
    assert await agree(server)
    assert (await ada.get(f"/files/{file['id']}/content")).status == 200


async def test_what_was_never_looked_into_is_rejected_in_the_end(
    server: Server, ada: Client
) -> None:
    file = await ready(server, ada, TEXT)
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(
            update(File).values(
                status="pending", created_at=utcnow() - timedelta(days=2)
            )
        )

    async with server.runtime.database.unit_of_work() as session:
        session.add(
            Job(name="file.inspect", args={"file_id": file["id"]}, run_at=LATER)
        )
    await server.runtime.files.sweeper.sweep()
    waiting = (await ada.get(f"/files/{file['id']}")).json
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(
            update(Job).where(Job.run_at == LATER).values(state="dead")
        )
    await server.runtime.files.sweeper.sweep()

    assert waiting["status"] == "pending"
    left = (await ada.get(f"/files/{file['id']}")).json
    assert left["status"] == "rejected"
    assert left["reason"] == "The file could not be looked into."
    assert await agree(server)


async def test_a_file_that_is_deleted_while_it_is_looked_into_leaves_nothing(
    server: Server, ada: Client
) -> None:
    file = await ready(server, ada, samples.image())
    file_id = UUID(file["id"])
    runtime = server.runtime
    async with runtime.database.unit_of_work() as session:
        await session.execute(update(File).values(status="pending"))
    looking = asyncio.create_task(runtime.files.inspection.inspect(file_id))
    assert (await ada.delete(f"/files/{file_id}")).status == 204

    await looking

    assert await agree(server)
    assert await stored_keys(server) == set()


async def test_an_inspection_that_is_run_twice_changes_nothing(
    server: Server, ada: Client
) -> None:
    file = await ready(server, ada, samples.pdf("Some words"))

    async with server.runtime.database.unit_of_work() as session:
        jobs.enqueue(session, "file.inspect", file_id=file["id"])
    await settled(server)

    assert (await ada.get(f"/files/{file['id']}")).json == file


async def test_files_of_a_deleted_account_are_hidden_then_erased(
    server: Server, ada: Client
) -> None:
    """TRUST D3: an erasure leaves no file."""
    await ready(server, ada, samples.pdf("Some words"))
    me = UUID((await ada.get("/users/me")).json["id"])
    form = {"password": "a long pass phrase"}
    assert (await ada.delete("/users/me", json=form)).status == 204
    hidden = await ada.get("/files")
    kept = await stored_keys(server)

    admin = await server.admin("users")
    erased = await admin.post(f"/admin/deleted-users/{me}/erase")

    assert (hidden.status, len(kept)) == (401, 2)
    assert erased.status == 200
    assert erased.json["rows"]["files"] == 1
    assert await stored_keys(server) == set()


async def test_files_live_on_s3_as_in_a_folder(serve: Any) -> None:
    with s3_server() as url:
        async with serve(**VARIABLES, S3_ENDPOINT_URL=url) as server:
            ada = await server.client("ada")
            file = await ready(server, ada, samples.pdf("Some words"), "a.pdf")
            content = f"/files/{file['id']}/content"

            whole = await ada.get(content)
            part = await ada.get(content, headers={"Range": "bytes=0-3"})
            link = await ada.get(f"/files/{file['id']}/download-url")
            async with aiohttp.ClientSession() as http:
                direct = await http.get(link.json["url"])
                fetched = await direct.read()

            assert file["status"] == "ready"
            assert whole.body == fetched == samples.pdf("Some words")
            assert (part.status, part.body) == (206, b"%PDF")
            assert direct.headers["Content-Disposition"].startswith("attachment")
            assert link.headers["Cache-Control"] == "no-store"
            await ada.delete(f"/files/{file['id']}")
            assert await agree(server)
            assert await stored_keys(server) == set()


async def test_an_export_of_the_account_holds_its_files(
    server: Server, ada: Client
) -> None:
    file = await ready(server, ada, TEXT, "a.txt")
    await ready(server, ada, samples.flood(), "rejected.png")

    export = await ada.get("/users/me/export")

    with ZipFile(BytesIO(export.body)) as archive:
        held = {n: archive.read(n) for n in archive.namelist() if "files/" in n}
        rows = archive.read("files.jsonl").splitlines()
    ending = file["id"].replace("-", "")[-8:]
    assert held == {f"files/{ending} a.txt": TEXT}
    assert len(rows) == 2


@on_sqlite
async def test_a_storage_that_is_away_is_a_503(serve: Any) -> None:
    away = {**VARIABLES, "S3_ENDPOINT_URL": "http://127.0.0.1:9"}
    async with serve(**away) as server:
        ada = await server.client("ada")

        answer = await ada.upload(TEXT, "a.txt")

        assert (answer.status, answer.json["code"]) == (503, "storage_unavailable")
        assert (await ada.get("/files")).json["items"] == []


async def test_a_virus_is_rejected_by_its_name(serve: Any) -> None:
    """TRUST U1: an infected file is never ready, and nothing of it is left."""
    async with FakeClamd() as clamd, serve(CLAMD_ADDRESS=clamd.address) as server:
        ada = await server.client("ada")

        infected = await ready(server, ada, EICAR, "eicar.txt")
        clean = await ready(server, ada, TEXT, "a.txt")

        assert infected["status"] == "rejected"
        assert infected["reason"] == "The file holds a virus: Eicar-Test-Signature."
        assert clean["status"] == "ready"
        assert await agree(server)


async def test_a_file_waits_for_a_scanner_that_is_away(serve: Any) -> None:
    """TRUST U1: until it was scanned, nobody gets its bytes, nor its text."""
    async with serve(CLAMD_ADDRESS="127.0.0.1:9") as server:
        ada = await server.client("ada")
        file = await ready(server, ada, TEXT, "a.txt")
        assert file["status"] == "pending"
        chat = await ada.chat()
        asked = {"content": "What is this?", "file_ids": [file["id"]]}
        project = (await ada.post("/projects", json={"name": "Trains"})).json["id"]
        withheld = [
            await ada.get(f"/files/{file['id']}/{part}")
            for part in ("content", "thumbnail", "download-url")
        ]
        not_leant_on = [
            await ada.get(f"/files/{file['id']}/text"),
            await ada.post(f"/chats/{chat}/messages", json=asked),
            await ada.post(
                f"/projects/{project}/documents", json={"file_id": file["id"]}
            ),
        ]
        export = await ada.get("/users/me/export")

        assert [(one.status, one.json["code"]) for one in withheld] == [
            (409, "file_pending")
        ] * 3
        assert [one.status for one in not_leant_on] == [422] * 3
        assert all("still being looked into" in o.json["detail"] for o in not_leant_on)
        with ZipFile(BytesIO(export.body)) as archive:
            assert not any("files/" in name for name in archive.namelist())

        async with FakeClamd() as clamd:
            server.runtime.files.inspection._scanner = Clamd(clamd.address)
            await server.runtime.files.inspection.inspect(UUID(file["id"]))

        assert (await ada.get(f"/files/{file['id']}")).json["status"] == "ready"
        assert (await ada.get(f"/files/{file['id']}/content")).body == TEXT
