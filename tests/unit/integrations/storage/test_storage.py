"""One contract, kept by a folder and by a bucket alike."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest

from app.core.database import utcnow
from app.integrations.storage.base import MissingObjectError, Storage, StorageError
from app.integrations.storage.local import LocalStorage
from app.integrations.storage.s3 import S3Storage
from tests.conftest import make_settings
from tests.fakes.s3 import BUCKET, VARIABLES, client, s3_server

PIECE = bytes(range(256)) * 1024


@pytest.fixture(scope="module")
def s3_url() -> Iterator[str]:
    with s3_server() as url:
        yield url


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "local":
        return LocalStorage(tmp_path / "files")
    return _s3(tmp_path, request.getfixturevalue("s3_url"))


def _s3(tmp_path: Path, url: str, **variables: str) -> S3Storage:
    given = {**VARIABLES, "S3_ENDPOINT_URL": url, **variables}
    return S3Storage(make_settings(tmp_path, **given).storage)


async def some(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def whole(pieces: AsyncIterator[bytes]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def keys(storage: Storage, prefix: str) -> list[str]:
    return sorted([one.key async for one in storage.objects(prefix)])


async def test_what_was_put_is_read_as_it_was(storage: Storage) -> None:
    content = [PIECE] * 50  # 12.5 MB: several parts

    await storage.put("files/ada/large", some(*content))

    assert b"".join(content) == await whole(storage.read("files/ada/large"))


@pytest.mark.parametrize(
    ("start", "end"), [(0, 10), (5, 6), (100, None), (0, None), (250, 260)]
)
async def test_a_part_is_read(storage: Storage, start: int, end: int | None) -> None:
    await storage.put("files/ada/part", some(PIECE[:256]))

    read = storage.read("files/ada/part", start=start, end=end)

    assert PIECE[:256][start:end] == await whole(read)


async def test_what_is_not_there_cannot_be_read(storage: Storage) -> None:
    with pytest.raises(MissingObjectError):
        await whole(storage.read("files/ada/nothing"))


async def test_an_upload_that_fails_leaves_nothing(storage: Storage) -> None:
    async def failing() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield PIECE
        raise ConnectionResetError("cut")

    with pytest.raises((ConnectionResetError, StorageError)):
        await storage.put("files/bob/cut", failing())

    assert await keys(storage, "files/bob/") == []


async def test_what_an_upload_raises_is_raised(storage: Storage) -> None:
    class RefusedError(Exception):
        pass

    async def refusing() -> AsyncIterator[bytes]:
        yield PIECE
        raise RefusedError

    with pytest.raises(RefusedError):
        await storage.put("files/bob/refused", refusing())


async def test_a_cancelled_upload_leaves_nothing(storage: Storage) -> None:
    half = asyncio.Event()

    async def stalling() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield PIECE
        half.set()
        await asyncio.Event().wait()

    upload = asyncio.create_task(storage.put("files/bob/stalled", stalling()))
    await half.wait()
    upload.cancel()
    with pytest.raises(asyncio.CancelledError):
        await upload

    assert await keys(storage, "files/bob/") == []


async def test_objects_are_listed_by_folder(storage: Storage) -> None:
    for key in ("files/eve/1", "files/eve/2", "thumbnails/eve/1", "files/evelyn/3"):
        await storage.put(key, some(b"x"))

    assert await keys(storage, "files/eve/") == ["files/eve/1", "files/eve/2"]
    assert [one.size async for one in storage.objects("thumbnails/eve/")] == [1]


async def test_deleting_deletes_also_what_is_not_there(storage: Storage) -> None:
    await storage.put("files/dan/1", some(b"x"))

    await storage.delete(["files/dan/0", "files/dan/1", "files/dan/2"])

    assert await keys(storage, "files/dan/") == []


async def test_a_local_sweep_takes_what_broken_uploads_left(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    await storage.put("files/ada/kept", some(b"x"))
    old, young = tmp_path / "files/ada/a#1", tmp_path / "files/ada/b#1"
    for path in (old, young):
        path.write_bytes(b"half")
    day = timedelta(days=1)
    os.utime(old, times=(0, 0))

    await storage.sweep(utcnow() - day)

    left = sorted(path.name for path in (tmp_path / "files/ada").iterdir())
    assert left == ["b#1", "kept"]


async def test_a_folder_that_nobody_has_used_is_swept_without_loading_anything(
    tmp_path: Path,
) -> None:
    """An idle server pays nothing for files."""
    script = f"""
import asyncio, sys
from pathlib import Path
from app.core.database import utcnow
from app.integrations.storage.local import LocalStorage

async def main():
    storage = LocalStorage(Path({str(tmp_path / "files")!r}))
    await storage.sweep(utcnow())
    print([one async for one in storage.objects("files/")], "obstore" in sys.modules)

asyncio.run(main())
"""
    ran = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await ran.communicate()

    assert out.decode().split() == ["[]", "False"]


async def test_a_folder_has_no_addresses(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)

    assert await storage.url("files/ada/1", disposition="attachment", seconds=9) is None


async def test_s3_gives_an_address_that_downloads(s3_url: str, tmp_path: Path) -> None:
    storage = _s3(tmp_path, s3_url)
    await storage.put("files/ada/page", some(b"<script>"))
    disposition = "attachment; filename=\"a.html\"; filename*=UTF-8''a.html"

    url = await storage.url("files/ada/page", disposition=disposition, seconds=60)

    assert url is not None
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        assert (response.status, await response.read()) == (200, b"<script>")
        assert response.headers["Content-Disposition"] == disposition
        assert response.headers["Content-Type"] == "application/octet-stream"
    assert VARIABLES["S3_SECRET_ACCESS_KEY"] not in url
    assert "X-Amz-Expires=60" in url


@pytest.mark.parametrize("cancelled", [False, True])
async def test_s3_keeps_no_part_of_what_broke_off(
    s3_url: str, tmp_path: Path, *, cancelled: bool
) -> None:
    half = asyncio.Event()

    async def breaking_off() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield PIECE
        half.set()
        if cancelled:
            await asyncio.Event().wait()
        raise ConnectionResetError("cut")

    storage = _s3(tmp_path, s3_url)
    upload = asyncio.create_task(storage.put("files/ada/cut", breaking_off()))
    await half.wait()
    if cancelled:
        upload.cancel()
    with pytest.raises((ConnectionResetError, StorageError, asyncio.CancelledError)):
        await upload

    uploads = client(s3_url).list_multipart_uploads(Bucket=BUCKET)
    assert [one["Key"] for one in uploads.get("Uploads", ())] == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda url: {"S3_BUCKET": "nobodys", "S3_ENDPOINT_URL": url},
        lambda _url: {"S3_ENDPOINT_URL": "http://127.0.0.1:9"},
    ],
    ids=["no bucket", "no server"],
)
async def test_a_storage_that_cannot_be_used_is_unavailable(
    s3_url: str, tmp_path: Path, spoil: Callable[[str], dict[str, str]]
) -> None:
    storage = _s3(tmp_path, s3_url, **spoil(s3_url))

    with pytest.raises(StorageError):
        await storage.put("files/ada/1", some(b"x"))


async def test_s3_takes_the_credentials_of_the_machine(
    s3_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "its secret")
    none = {"S3_ACCESS_KEY_ID": "", "S3_SECRET_ACCESS_KEY": ""}
    storage = _s3(tmp_path, s3_url, **none)

    await storage.put("files/ada/mine", some(b"x"))

    assert await whole(storage.read("files/ada/mine")) == b"x"
    url = await storage.url("files/ada/mine", disposition="attachment", seconds=9)
    assert url is not None
    assert "another%20key" in url
