"""The text of files, for whatever builds on it."""

from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app import models
from app.core.exceptions import FieldError, ValidationFailedError
from app.models import File
from app.services.authorization import Principal, require


@dataclass(frozen=True, slots=True)
class FileText:
    """`pages` are the offsets in `text` at which pages start; empty without any."""

    name: str
    text: str
    pages: list[int]


async def text_of(
    session: AsyncSession, principal: Principal, file_id: UUID
) -> FileText:
    """Raises NotFoundError, and ValidationFailedError where it has no text, or not yet.

    The latter names `file_id`.
    """
    file = await require(session, principal, File, file_id)
    found = await session.get(models.FileText, file_id)
    if file.status != "ready" or found is None:
        raise _without_text(file)
    return FileText(name=file.name, text=found.text, pages=found.pages)


def _without_text(file: File) -> ValidationFailedError:
    message = {
        "pending": "names a file that is still being looked into: try again shortly",
        "rejected": f"names a file that was rejected: {file.why}",
    }.get(file.status, "names a file in which there is no text")
    return ValidationFailedError(
        f"`file_id` {message}.", errors=[FieldError(path="file_id", message=message)]
    )
