"""Files that were ready before a setting, or a version, asked for more."""

from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import select, update

from app.integrations.scanning.base import ScannerError
from app.integrations.scanning.clamd import Clamd
from app.models import File, FileText
from app.services.file import places
from tests import samples
from tests.client import Client
from tests.conftest import Server
from tests.fakes.clamd import EICAR, FakeClamd
from tests.integration.test_knowledge import count
from tests.integration.uploading import TEXT, agree, ready


@pytest.fixture
async def ada(server: Server) -> Client:
    return await server.client("ada")


@pytest.fixture
async def clamd(server: Server) -> AsyncIterator[FakeClamd]:
    """It is there now, and takes a kilobyte."""
    async with FakeClamd(most=1000) as clamd:
        yield clamd


def scan_with(server: Server, address: str) -> None:
    """As after a start with CLAMD_ADDRESS."""
    server.runtime.files.inspection._scanner = Clamd(address)


async def once(content: bytes) -> AsyncIterator[bytes]:
    yield content


async def files_of(server: Server) -> dict[str, File]:
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        return {file.name: file for file in await session.scalars(select(File))}


async def test_what_was_ready_before_there_was_a_scanner_is_scanned_once(
    server: Server, ada: Client, clamd: FakeClamd
) -> None:
    """TRUST U1: an infected file is rejected, and nothing of it is left."""
    infected = await ready(server, ada, EICAR, "eicar.txt")
    clean = await ready(server, ada, TEXT, "a.txt")
    assert infected["status"] == clean["status"] == "ready"
    scan_with(server, clamd.address)

    for _ in range(2):
        await server.runtime.files.catchup.run()

    infected = (await ada.get(f"/files/{infected['id']}")).json
    assert infected["status"] == "rejected"
    assert infected["reason"] == "The file holds a virus: Eicar-Test-Signature."
    assert (await ada.get(f"/files/{infected['id']}/content")).status == 409
    assert (await ada.get(f"/files/{clean['id']}/content")).body == TEXT
    assert clamd.streams == [EICAR, TEXT]
    assert await count(server.runtime.database, FileText) == 1
    assert await agree(server)


async def test_what_is_scanned_when_it_comes_is_not_scanned_again(
    server: Server, ada: Client, clamd: FakeClamd
) -> None:
    scan_with(server, clamd.address)
    await ready(server, ada, TEXT, "a.txt")

    await server.runtime.files.catchup.run()

    assert clamd.streams == [TEXT]


async def test_a_file_that_cannot_be_scanned_keeps_no_other_from_it(
    server: Server, ada: Client, clamd: FakeClamd
) -> None:
    """One that the scanner does not take, and one whose bytes are lost."""
    lost = await ready(server, ada, b"lost", "lost.txt")
    await ready(server, ada, TEXT * 99, "long.txt")
    await ready(server, ada, TEXT, "short.txt")
    owner = (await files_of(server))["lost.txt"].user_id
    await server.runtime.storage.delete([places.original(owner, UUID(lost["id"]))])
    scan_with(server, clamd.address)

    await server.runtime.files.catchup.run()

    files = (await files_of(server)).values()
    assert {file.name: (file.status, file.scanned) for file in files} == {
        "lost.txt": ("ready", False),
        "long.txt": ("ready", False),
        "short.txt": ("ready", True),
    }


async def test_while_the_scanner_is_away_files_stay_as_they_are(
    server: Server, ada: Client
) -> None:
    file = await ready(server, ada, TEXT, "a.txt")
    scan_with(server, "127.0.0.1:9")

    with pytest.raises(ScannerError):
        await server.runtime.files.catchup.run()

    assert (await ada.get(f"/files/{file['id']}/content")).body == TEXT


async def test_an_image_from_before_images_were_scaled_is_scaled(
    server: Server, ada: Client
) -> None:
    images: list[dict[str, Any]] = [
        await ready(server, ada, samples.noise("PNG", (1300, 1000)), "large.png"),
        await ready(server, ada, samples.image(), "small.png"),
    ]
    now = await files_of(server)
    large = now["large.png"]
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(update(File).values(scaled_size=None))
    await server.runtime.storage.delete([places.scaled(large.user_id, large.id)])

    await server.runtime.files.catchup.run()

    again = await files_of(server)
    assert {name: file.scaled_size for name, file in again.items()} == {
        "large.png": large.scaled_size,
        "small.png": None,
    }
    assert large.scaled_size is not None
    assert [image["status"] for image in images] == ["ready"] * 2
    assert await agree(server)


async def test_an_image_that_cannot_be_scaled_is_tried_once(
    server: Server, ada: Client
) -> None:
    image = samples.noise("PNG", (1300, 1000))
    await ready(server, ada, image, "large.png")
    large = (await files_of(server))["large.png"]
    async with server.runtime.database.unit_of_work() as session:
        await session.execute(update(File).values(scaled_size=None))
    storage = server.runtime.storage
    await storage.delete([places.scaled(large.user_id, large.id)])

    for stored in (image[:2000], image):
        await storage.put(places.original(large.user_id, large.id), once(stored))
        await server.runtime.files.catchup.run()

    again = (await files_of(server))["large.png"]
    assert (again.status, again.scaled_size) == ("ready", 0)
    assert await agree(server)
