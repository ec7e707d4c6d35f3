"""Files as tests upload them, and what storage and database have of them."""

from typing import Any

from sqlalchemy import select

from app.models import File
from app.services.file import places
from tests.client import Client
from tests.conftest import Server
from tests.integration.rows import settled

TEXT = b"Trains to Bern leave at nine."


async def ready(
    server: Server, client: Client, content: bytes, name: str = "a file"
) -> dict[str, Any]:
    """Upload a file and wait until it was looked into."""
    answer = await client.upload(content, name)
    assert answer.status == 201, answer.body
    await settled(server)
    return dict((await client.get(f"/files/{answer.json['id']}")).json)


async def stored_keys(server: Server) -> set[str]:
    return {
        one.key
        for folder in places.FOLDERS
        async for one in server.runtime.storage.objects(f"{folder}/")
    }


async def expected_keys(server: Server) -> set[str]:
    """What storage should have, going by the database."""
    async with server.runtime.database.unit_of_work(read_only=True) as session:
        files = (await session.scalars(select(File))).all()
    kept = [file for file in files if file.status != "rejected"]
    return (
        {places.original(f.user_id, f.id) for f in kept}
        | {places.thumbnail(f.user_id, f.id) for f in kept if f.has_thumbnail}
        | {places.scaled(f.user_id, f.id) for f in kept if f.scaled_size}
    )


async def agree(server: Server) -> bool:
    """Whether storage has what the database says, and nothing else."""
    await settled(server)
    assert await stored_keys(server) == await expected_keys(server)
    return True


def raw_form(content: bytes, name: str) -> dict[str, Any]:
    """A form as no well-behaved client would make it."""
    head = f'Content-Disposition: form-data; name="file"; filename="{name}"'
    body = b"\r\n".join(
        [
            b"--limit",
            head.replace("\\", "\\\\").encode(),
            b"",
            content,
            b"--limit--",
            b"",
        ]
    )
    return {
        "data": body,
        "headers": {"Content-Type": "multipart/form-data; boundary=limit"},
    }
