"""Message logs, for those who may look at them; each look is in the audit."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

import orjson
from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import defer

from app.core.crypto import Crypto, CryptoError
from app.core.database import Database
from app.core.exceptions import ConflictError, NotFoundError
from app.models import MessageLog, User, first_id
from app.schemas.message_log import MessageLogFilter, MessageLogRead, MessageLogText
from app.services import audit
from app.services.audit import Actor
from app.services.paging import Paging, page
from app.utils.csv import line

Format = Literal["csv", "jsonl"]
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv; charset=utf-8",
    "jsonl": "application/jsonl",
}

_CHUNK = 200  # the text of one may be a quarter of a MiB
_FIGURES = tuple(MessageLogRead.model_fields)


@dataclass(frozen=True, slots=True)
class _Chunk:
    """How an export pages through the list."""

    cursor: str | None = None
    limit: int = _CHUNK
    offset: int = 0


async def listing(
    database: Database, actor: Actor, at: Paging, wanted: MessageLogFilter
) -> tuple[Sequence[MessageLog], str | None]:
    """A page of figures, the newest first, and the cursor of the next one."""
    async with database.unit_of_work() as session:
        wanted = await _by_id(session, wanted)
        statement = _matching(wanted)
        statement = statement.options(defer(MessageLog.messages, raiseload=True))
        await audit.record(
            session, actor, "message_log.list", after=_plain(wanted) or None
        )
        return await page(session, statement, MessageLog, at)


async def read(
    database: Database, crypto: Crypto, actor: Actor, log_id: UUID
) -> MessageLogText:
    """One with its text. The audit says whose, and that it was looked at."""
    async with database.unit_of_work() as session:
        found = await session.get(MessageLog, log_id)
        if found is None:
            raise NotFoundError("There is no message log with this id.")
        await audit.record(
            session,
            actor,
            "message_log.read",
            target=("user", found.user_id),
            after={"message_log": log_id},
        )
    return MessageLogText.model_validate(
        {**_figures(found), "messages": _open(crypto, found)}
    )


async def export(
    database: Database,
    crypto: Crypto,
    actor: Actor,
    wanted: MessageLogFilter,
    *,
    kind: Format,
    with_text: bool,
) -> AsyncIterator[bytes]:
    """All that match, as a file in bounded memory; the audit has it beforehand."""
    async with database.unit_of_work() as session:
        wanted = await _by_id(session, wanted)
        what = {**_plain(wanted), "format": kind, "with_text": with_text}
        await audit.record(session, actor, "message_log.export", after=what)
    return _export(database, crypto, wanted, kind=kind, with_text=with_text)


async def _export(
    database: Database,
    crypto: Crypto,
    wanted: MessageLogFilter,
    *,
    kind: Format,
    with_text: bool,
) -> AsyncIterator[bytes]:
    names = (*_FIGURES, "messages") if with_text else _FIGURES
    statement = _matching(wanted)
    if not with_text:
        statement = statement.options(defer(MessageLog.messages, raiseload=True))
    if kind == "csv":
        yield line(names).encode()
    at = _Chunk()
    while True:
        async with database.unit_of_work(read_only=True) as session:
            found, following = await page(session, statement, MessageLog, at)
        rows = [_figures(log) for log in found]
        if with_text:
            # Not in the event loop: to open many takes its time.
            texts = await asyncio.to_thread(_texts, crypto, found)
            for row, text in zip(rows, texts, strict=True):
                row["messages"] = text
        write = _as_csv if kind == "csv" else _as_json
        yield b"".join(write(row) for row in rows)
        if following is None:
            return
        at = _Chunk(following)


async def _by_id(session: AsyncSession, wanted: MessageLogFilter) -> MessageLogFilter:
    """The same with the user's id for a name: names have no place in the audit.

    Raises NotFoundError for a name that nobody has, or not who has the id.
    """
    if wanted.username is None:
        return wanted
    name = wanted.username.strip().lower()
    column = User.email if "@" in name else User.username
    user_id = await session.scalar(select(User.id).where(column == name))
    if user_id is None or wanted.user_id not in {None, user_id}:
        raise NotFoundError("There is no user of this name.")
    return wanted.model_copy(update={"user_id": user_id, "username": None})


def _matching(wanted: MessageLogFilter) -> Select[MessageLog]:
    """Times as bounds of the key, which was made at that time."""
    statement = select(MessageLog)
    for name in ("user_id", "kind", "model", "status"):
        if (value := getattr(wanted, name)) is not None:
            statement = statement.where(getattr(MessageLog, name) == value)
    if wanted.since is not None:
        statement = statement.where(MessageLog.id >= first_id(wanted.since))
    if wanted.until is not None:
        statement = statement.where(MessageLog.id < first_id(wanted.until))
    return statement


def _plain(wanted: MessageLogFilter) -> dict[str, Any]:
    return wanted.model_dump(mode="json", exclude_none=True)


def _figures(log: MessageLog) -> dict[str, Any]:
    return {name: getattr(log, name) for name in _FIGURES}


def _texts(crypto: Crypto, logs: Sequence[MessageLog]) -> list[Any]:
    return [_open(crypto, log) for log in logs]


def _open(crypto: Crypto, log: MessageLog) -> Any:
    if log.messages is None:
        return None
    try:
        text = crypto.open(log.messages, place=f"message_logs.messages:{log.id}")
    except CryptoError as error:
        raise ConflictError(
            f"The text of {log.id} does not open with the keys in ENCRYPTION_KEY.",
            code="unreadable",
        ) from error
    return orjson.loads(text)


def _as_csv(row: dict[str, Any]) -> bytes:
    if row.get("messages") is not None:
        row["messages"] = orjson.dumps(row["messages"]).decode()
    return line(row.values()).encode()


def _as_json(row: dict[str, Any]) -> bytes:
    # str: PostgreSQL's driver has a UUID of its own.
    options = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
    return orjson.dumps(row, default=str, option=options)
