"""Users as CSV: many are made at once, or listed for other programs."""

import csv
import io
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.database import Database, utcnow
from app.core.exceptions import FieldError, ValidationFailedError
from app.core.passwords import NO_PASSWORD
from app.models import User
from app.schemas.desk import ImportReport, UserImport, UserStatus
from app.schemas.user import UserRead
from app.services.audit import Actor
from app.services.desk import users
from app.utils.csv import line, unquoted

_COLUMNS = frozenset(UserImport.model_fields)
_MOST_ERRORS = 100
_CHUNK = 500
_BETWEEN_INVITATIONS = timedelta(seconds=0.2)
"""Jobs are taken up by their time: so whoever waits for a link to log in does not wait
behind ten thousand invitations, and mail servers are not asked for all at once."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """How an export pages through the list."""

    cursor: str | None
    limit: int = _CHUNK
    offset: int = 0


async def import_users(
    session: AsyncSession, actor: Actor, file: bytes
) -> ImportReport:
    """Make an account of every row, or of none.

    The columns are those of `UserImport`, named in the first row. Raises
    ValidationFailedError, which names each wrong row as `rows.<line>.<column>`.
    """
    rows, errors = _read(file)
    errors += [e async for e in _taken(session, rows)]
    if errors:
        errors = errors[:_MOST_ERRORS]
        words = "; ".join(f"{e['path']}: {e['message']}" for e in errors)
        raise ValidationFailedError(words, errors=errors)
    made = [
        User(**form.model_dump(), password_hash=NO_PASSWORD) for form in rows.values()
    ]
    session.add_all(made)
    await session.flush()
    now = utcnow()
    for number, user in enumerate(made):
        await users.welcome(
            session, actor, user, invite_at=now + number * _BETWEEN_INVITATIONS
        )
    return ImportReport(created=len(made))


async def export_users(
    database: Database, *, query: str | None, status: UserStatus | None
) -> AsyncIterator[str]:
    """The lines of the list, the newest account first, each chunk read by itself."""
    columns = tuple(UserRead.model_fields)
    yield line(columns)
    cursor: str | None = None
    while True:
        async with database.unit_of_work(read_only=True) as session:
            found, cursor = await users.listing(
                session, _Chunk(cursor), query=query, status=status
            )
        yield "".join(line(getattr(user, name) for name in columns) for user in found)
        if cursor is None:
            return


def _read(file: bytes) -> tuple[dict[int, UserImport], list[FieldError]]:
    """The rows by their line in the file, and what is wrong with others."""
    try:
        text = file.decode("utf-8-sig")
    except UnicodeDecodeError:
        return {}, [FieldError(path="body", message="is no text in UTF-8")]
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    rows: dict[int, UserImport] = {}
    errors: list[FieldError] = []
    try:
        if wrong := list(_wrong_columns(reader.fieldnames or ())):
            return {}, wrong
        for record in reader:
            if None in record:
                message = "has more cells than columns"
                errors.append(_error(reader.line_num, "row", message))
                continue
            cells = {n: unquoted(c) for n, c in record.items() if c and c.strip()}
            try:
                rows[reader.line_num] = UserImport.model_validate(cells)
            except ValidationError as error:
                errors += map(partial(_field_error, reader.line_num), error.errors())
    except csv.Error as error:
        message = f"is no CSV after line {reader.line_num}: {error}"
        errors.append(FieldError(path="body", message=message))
    return rows, errors


def _wrong_columns(names: Sequence[str]) -> Iterator[FieldError]:
    if "email" not in names:
        message = "needs a column `email`: name the columns in the first row"
        yield FieldError(path="body", message=message)
    for name, times in Counter(names).items():
        if name not in _COLUMNS:
            message = f"is not imported; columns are {', '.join(sorted(_COLUMNS))}"
            yield _error(1, name, message)
        elif times > 1:
            yield _error(1, name, "is there twice: which of them counts?")


async def _taken(
    session: AsyncSession, rows: dict[int, UserImport]
) -> AsyncIterator[FieldError]:
    """A row whose address or name an account has already, or a row above it."""
    known: dict[str, set[str | None]] = {"email": set(), "username": set()}
    forms = list(rows.values())
    for start in range(0, len(forms), _CHUNK):
        chunk = forms[start : start + _CHUNK]
        emails = [form.email for form in chunk]
        names = [form.username for form in chunk if form.username]
        found = await session.execute(
            select(User.email, User.username).where(
                or_(User.email.in_(emails), User.username.in_(names))
            )
        )
        for email, username in found:
            known["email"].add(email)
            known["username"].add(username)
    for number, form in rows.items():
        for name, seen in known.items():
            value = getattr(form, name)
            if value in seen:
                yield FieldError(path=f"rows.{number}.{name}", message="is taken")
            elif value is not None:
                seen.add(value)


def _field_error(line_number: int, error: ErrorDetails) -> FieldError:
    message = error["msg"].removeprefix("Value error, ")
    return _error(line_number, str(error["loc"][0]), message)


def _error(line_number: int, name: str, message: str) -> FieldError:
    return FieldError(path=f"rows.{line_number}.{name}", message=message)
