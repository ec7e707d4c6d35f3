"""The bytes of a file on their way out.

Reference: RFC 9110, sections 13 and 14, for conditions and ranges. One range at a time:
a request for many of them is refused, whatever they add up to.
"""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass
from datetime import datetime, timedelta
from urllib.parse import quote
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import utcnow
from app.core.exceptions import AppError, ConflictError, NotFoundError
from app.integrations.storage.base import Storage
from app.models import File
from app.services.authorization import Principal, require
from app.services.chat.reply import Follower
from app.services.file import places
from app.services.principal import Principals

URL_SECONDS = 300
_RANGE = re.compile(r"bytes=\s*(\d{0,18})-(\d{0,18})\s*")


class RangeNotSatisfiableError(AppError):
    status, code, title = 416, "range_not_satisfiable", "Range not satisfiable"


@dataclass(frozen=True, slots=True)
class Download:
    """A file, or the part of it from `start` up to, without, `end`."""

    file: File
    start: int
    end: int
    is_part: bool
    """Whether a range was asked for, be it of all bytes."""


@dataclass(frozen=True, slots=True)
class Address:
    url: str
    expires_at: datetime


async def download(
    session: AsyncSession,
    principal: Principal,
    file_id: UUID,
    *,
    wanted: str | None,
    scanned: bool,
) -> Download:
    """What is asked for by the header `Range`, if any.

    Where files are `scanned` for viruses, none leaves before it was. Raises
    ConflictError for one that waits for that or was rejected, and
    RangeNotSatisfiableError.
    """
    file = await require(session, principal, File, file_id)
    if scanned:
        _require_looked_into(file)
    if file.status == "rejected":
        raise ConflictError(
            f"Nothing is left of this file, which was rejected: {file.reason}",
            code="file_rejected",
        )
    if wanted is None or not wanted.startswith("bytes="):
        return Download(file, 0, file.size, is_part=False)  # other units go unheard
    start, end = _range(wanted, file.size)
    return Download(file, start, end, is_part=True)


def _require_looked_into(file: File) -> None:
    if file.status == "pending":
        raise ConflictError(
            "This file is still being looked into: try again shortly.",
            code="file_pending",
        )


def _range(wanted: str, size: int) -> tuple[int, int]:
    found = _RANGE.fullmatch(wanted)
    if found is None:
        raise _not_satisfiable("Ask for one range of bytes", size)
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last) + 1 if last else size, size)
    else:
        start, end = max(0, size - int(last or 0)), size
    if start >= end:
        raise _not_satisfiable(f"The file has {size:,} bytes", size)
    return start, end


def _not_satisfiable(detail: str, size: int) -> RangeNotSatisfiableError:
    headers = {"Content-Range": f"bytes */{size}"}
    return RangeNotSatisfiableError(f"{detail}.", headers=headers)


async def pieces(
    storage: Storage, principals: Principals, principal: Principal, part: Download
) -> AsyncGenerator[bytes]:
    """Its bytes. Raises UnauthenticatedError where the session ends meanwhile."""
    follower = Follower()
    key = places.original(part.file.user_id, part.file.id)
    with principals.following(principal, follower):
        read = storage.read(key, start=part.start, end=part.end)
        async with aclosing(read) as found:  # type: ignore[type-var]  # every storage's is a generator
            async for piece in found:
                if follower.closed_by is not None:
                    raise follower.closed_by
                yield piece


async def begun(found: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same, read up to the first: what is wrong is told before an answer begins."""
    first = await anext(found, b"")

    async def rest() -> AsyncIterator[bytes]:
        yield first
        async for piece in found:
            yield piece

    return rest()


async def thumbnail(
    session: AsyncSession, storage: Storage, principal: Principal, file_id: UUID
) -> AsyncIterator[bytes]:
    """Raises NotFoundError where it has none, and ConflictError where not yet."""
    file = await require(session, principal, File, file_id)
    _require_looked_into(file)
    if not file.has_thumbnail:
        raise NotFoundError("There is no thumbnail of this file.")
    return storage.read(places.thumbnail(file.user_id, file.id))


async def address(
    session: AsyncSession,
    storage: Storage,
    principal: Principal,
    file_id: UUID,
    *,
    scanned: bool,
) -> Address:
    """Where anybody may fetch it for some minutes, from the storage itself.

    Raises ConflictError as `download` does, and where the storage has no addresses.
    """
    part = await download(session, principal, file_id, wanted=None, scanned=scanned)
    url = await storage.url(
        places.original(part.file.user_id, part.file.id),
        disposition=disposition(part.file.name),
        seconds=URL_SECONDS,
    )
    if url is None:
        raise ConflictError(
            "The files of this installation have no addresses of their own: read "
            "/content.",
            code="no_download_url",
        )
    return Address(url, utcnow() + timedelta(seconds=URL_SECONDS))


def disposition(name: str) -> str:
    """The header that makes a browser save it, under that name (RFC 6266)."""
    plain = re.sub(r'["\\%]', "_", name.encode("ascii", "replace").decode())
    plain = plain.replace("?", "_")
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(name, safe='')}"
