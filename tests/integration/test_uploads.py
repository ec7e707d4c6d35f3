"""Uploads that are refused, rejected, limited (TRUST U1, F11)."""

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO
from typing import Any

import aiohttp
import pytest

from tests import samples
from tests.client import Client
from tests.conftest import Server, on_sqlite
from tests.integration.uploading import (
    TEXT,
    agree,
    raw_form,
    ready,
    stored_keys,
)

UNSUPPORTED = (415, "unsupported_media_type")
WRONG = (422, "validation_failed")
PART = b"--limit\r\nContent-Disposition: form-data; name="


@pytest.fixture
async def ada(server: Server) -> Client:
    return await server.client("ada")


# What is not


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (samples.pdf("a", encrypted=True), "is encrypted"),
        (samples.pdf("a")[:200], "is a broken PDF"),
        (samples.pdf(), "without pages"),
        (samples.bomb(), "unpacks to more than"),
        (samples.flood(), "50,000 x 50,000 pixels"),
        (samples.archive({"../../etc/passwd": "root"}), "no docx, xlsx or pptx"),
        (
            samples.office("word/document.xml", {"word/vbaProject.bin": b"x"}),
            "holds macros",
        ),
    ],
    ids=["encrypted", "broken", "no pages", "zip bomb", "flood", "zip slip", "macros"],
)
async def test_bad_content_is_rejected_with_its_reason(
    server: Server, ada: Client, content: bytes, reason: str
) -> None:
    """TRUST U1: polyglots, zip bombs, zip slip, pixel floods, macros."""
    file = await ready(server, ada, content, "report.pdf")

    assert file["status"] == "rejected"
    assert reason in file["reason"]
    for path in ("content", "thumbnail", "text"):
        assert 400 <= (await ada.get(f"/files/{file['id']}/{path}")).status < 500
    assert await agree(server)
    assert await stored_keys(server) == set()


@pytest.mark.parametrize(
    ("content", "name", "refusal"),
    [
        (samples.PROGRAM, "invoice.pdf", UNSUPPORTED),
        (b"\x7fELF" + bytes(99), "photo.png", UNSUPPORTED),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99), "old.doc", UNSUPPORTED),
        (b"", "empty.pdf", WRONG),
        (TEXT, "../../etc/passwd", WRONG),
        (TEXT, "..\\windows", WRONG),
        (TEXT, "a" * 296 + ".txt", WRONG),
        (TEXT, "invoice\u202efdp.exe", WRONG),
        (TEXT, "\u200fright.txt", WRONG),
        (TEXT, "..", WRONG),
        (TEXT, "nul\0.txt", WRONG),
    ],
    ids=["program", "elf", "old office", "empty", "path", "windows path", "300",
         "override", "rtl mark", "dots", "nul"],
)  # fmt: skip
async def test_bad_uploads_are_refused_at_once(
    server: Server, ada: Client, content: bytes, name: str, refusal: tuple[int, str]
) -> None:
    """TRUST U1: renamed programs, `../`, names that are long or turn their letters."""
    answer = await ada.request("POST", "/files", **raw_form(content, name))

    assert (answer.status, answer.json["code"]) == refusal
    assert (await ada.get("/files")).json["items"] == []
    assert await stored_keys(server) == set()


async def test_an_upload_that_is_cut_leaves_nothing(
    server: Server, ada: Client
) -> None:
    """TRUST U1: storage and database agree afterwards."""
    half = asyncio.Event()

    async def cut() -> AsyncIterator[bytes]:
        whole: bytes = raw_form(TEXT * 200_000, "a.txt")["data"]
        yield whole[:3_000_000]
        half.set()
        raise ConnectionResetError

    headers = {
        **ada.headers,
        "Content-Type": "multipart/form-data; boundary=limit",
        "Content-Length": "9000000",
    }
    async with aiohttp.ClientSession() as http:
        with pytest.raises(aiohttp.ClientError):
            await http.post(f"{ada.url}/api/v1/files", data=cut(), headers=headers)

    assert half.is_set()
    again = await ada.upload(TEXT, "after.txt")
    assert again.status == 201
    assert [one["name"] for one in (await ada.get("/files")).json["items"]] == [
        "after.txt"
    ]
    assert await agree(server)


async def test_a_form_that_ends_early_is_refused(server: Server, ada: Client) -> None:
    request = raw_form(TEXT, "a.txt")
    request["data"] = request["data"][:-12]

    answer = await ada.request("POST", "/files", **request)

    assert (answer.status, answer.json["code"]) == (400, "bad_request")
    assert await stored_keys(server) == set()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"--limit\r\nX: " + b"y" * 100_000, 400),
        (b"--limit\r\n" + b"X: y\r\n" * 1000 + b"\r\n", 400),
        (PART + b"a\r\n\r\n" + b"y" * 99_999,
         400),
        ((PART + b"a\r\n\r\nb\r\n") * 50 + b"--limit--\r\n", 400),
        (b"no form at all", 400),
        (PART + b"a\r\n\r\nb\r\n--limit--\r\n",
         422),
        (PART + b"file\r\n\r\nb\r\n--limit--\r\n", 422),
        (b"", 400),
    ],
    ids=["long header", "many headers", "long field", "many parts", "no form",
         "no file", "a field named file", "nothing"],
)  # fmt: skip
@on_sqlite
async def test_hostile_forms_are_refused(
    server: Server, ada: Client, body: bytes, status: int
) -> None:
    """TRUST F11: unbounded part headers and the like: a 4xx."""
    answer = await ada.request(
        "POST",
        "/files",
        data=body,
        headers={"Content-Type": "multipart/form-data; boundary=limit"},
    )

    assert answer.status == status, answer.body
    assert await stored_keys(server) == set()


@on_sqlite
@pytest.mark.parametrize(
    "kind",
    ["application/json", "multipart/form-data", "multipart/form-data; boundary=" + "x"
     * 300],
)  # fmt: skip
async def test_another_body_than_a_form_is_refused(ada: Client, kind: str) -> None:
    answer = await ada.request(
        "POST", "/files", data=b"{}", headers={"Content-Type": kind}
    )

    assert answer.status in {400, 415}


async def limited(server: Server, client: Client, **limits: int) -> None:
    me = (await client.get("/users/me")).json["id"]
    admin = await server.admin("plans")
    assert (await admin.put(f"/admin/users/{me}/limits", json=limits)).status == 204


async def test_the_plan_limits_a_files_size(server: Server, ada: Client) -> None:
    await limited(server, ada, file_bytes=1000)

    fits = await ada.upload(b"x" * 1000, "fits.txt")
    large = await ada.upload(b"y" * 1001, "large.txt")

    assert fits.status == 201
    assert (large.status, large.json["code"]) == (413, "file_too_large")
    assert await agree(server)


async def test_the_plan_limits_the_storage(server: Server, ada: Client) -> None:
    await limited(server, ada, storage_bytes=1000)
    first = await ada.upload(b"x" * 600, "first.txt")

    full = await ada.upload(b"y" * 600, "second.txt")
    told = (await ada.get("/usage/limits")).json
    await ada.delete(f"/files/{first.json['id']}")
    fits = await ada.upload(b"y" * 600, "second.txt")

    assert (full.status, full.json["code"]) == (413, "storage_full")
    assert (told["storage_used"], told["storage_bytes"]) == (600, 1000)
    assert fits.status == 201
    assert await agree(server)


async def test_uploads_at_once_cannot_go_beyond_the_storage(
    server: Server, ada: Client
) -> None:
    await limited(server, ada, storage_bytes=1000)

    answers = await asyncio.gather(
        *(ada.upload(f"{n}".encode() * 400, f"{n}") for n in range(6))
    )

    assert sorted(answer.status for answer in answers) == [201] * 2 + [413] * 4
    assert await agree(server)


@on_sqlite
async def test_an_installation_limits_a_files_size(serve: Any) -> None:
    async with serve(MAX_FILE_BYTES="2000") as server:
        ada = await server.client("ada")

        large = await ada.upload(b"y" * 2001, "large.txt")
        huge = await ada.upload(b"y" * 2_000_000, "huge.txt")

        assert (large.status, large.json["code"]) == (413, "file_too_large")
        assert huge.status == 413


@on_sqlite
async def test_only_uploads_may_be_large(ada: Client) -> None:
    large = b'{"title": "' + b"x" * 3 * 2**20 + b'"}'

    assert (await ada.upload(large, "large.json")).status == 201
    assert (await ada.post("/chats", data=BytesIO(large))).status == 413


async def test_more_uploads_at_once_than_can_be_held_are_refused(
    server: Server, ada: Client
) -> None:
    """TRUST F7, F11: each upload holds some memory, so there are 16 at once."""
    enough, go_on = asyncio.Semaphore(0), asyncio.Event()

    def slow(number: int) -> dict[str, Any]:
        form = raw_form(f"{number}".encode() * 9000, f"{number}.txt")
        body: bytes = form["data"]

        async def pieces() -> AsyncIterator[bytes]:
            yield body[:-100]
            enough.release()
            await go_on.wait()
            yield body[-100:]

        return {**form, "data": pieces()}

    uploads = [
        asyncio.create_task(ada.request("POST", "/files", **slow(number)))
        for number in range(16)
    ]
    for _ in uploads:
        await enough.acquire()
    slots = server.runtime.files.uploads._slots
    while not slots.locked():  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.005)
    refused = await ada.upload(TEXT, "a.txt")
    go_on.set()
    answers = await asyncio.gather(*uploads)

    assert (refused.status, refused.json["code"]) == (503, "overloaded")
    assert {answer.status for answer in answers} == {201}
    assert (await ada.upload(TEXT, "a.txt")).status == 201
