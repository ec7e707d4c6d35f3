"""Requests that are sent twice and happen once: the `Idempotency-Key` header.

The key is written in the transaction of what the request does. So a crash leaves both
or neither, and of twins the second waits in the database, whichever process has it,
until the first is done. Only what succeeded is kept: what failed has changed nothing,
and may be tried again.
"""

import hashlib
import re
from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar
from uuid import UUID

from sqlalchemy import bindparam, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.columns import UtcDateTime
from app.core.database import Database, changed_rows, utcnow
from app.core.exceptions import ConflictError, FieldError, ValidationFailedError
from app.core.statements import Script, Statement
from app.models import IdempotencyKey

_KEEP = timedelta(days=1)
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
T = TypeVar("T")
_Insert = TypeVar("_Insert", sqlite.Insert, postgresql.Insert)


class KeyReusedError(ConflictError):
    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was sent with another request: use a new one."
        )


class InProgressError(ConflictError):
    """The key is another request's; who catches this looks what that was answered."""

    code = "request_in_progress"

    def __init__(self) -> None:
        super().__init__(
            "A request with this Idempotency-Key is being answered: try again shortly.",
            headers={"Retry-After": "1"},
        )


class SecretShownError(ConflictError):
    code = "secret_shown_once"

    def __init__(self, resource_id: UUID | None) -> None:
        super().__init__(
            "This was done before, and its answer held a secret, which is shown once.",
            extra={"id": str(resource_id)},
        )


@dataclass(slots=True, eq=False)
class Claim:
    """A request's wish to be answered once.

    `taken` once the key is written; by the request's own `session` where it has one,
    which then waits for the answer.
    """

    owner_id: UUID
    key: str
    fingerprint: bytes
    taken: bool = False
    session: AsyncSession | None = None

    @classmethod
    def of(cls, owner_id: UUID, key: str, request: Iterable[bytes]) -> "Claim":
        """Raises ValidationFailedError for a key that cannot be one."""
        if not _KEY.fullmatch(key):
            message = "must be 1 to 255 visible ASCII characters"
            raise ValidationFailedError(
                f"Idempotency-Key {message}.",
                errors=[FieldError(path="Idempotency-Key", message=message)],
            )
        digests = b"".join(hashlib.sha256(part).digest() for part in request)
        return cls(owner_id, key, hashlib.sha256(digests).digest())


current: ContextVar[Claim | None] = ContextVar("idempotency_claim", default=None)
"""Of the request that is being handled; None where it has no key."""


async def find(database: Database, claim: Claim) -> IdempotencyKey | None:
    """What the key stands for already; raises KeyReusedError for another request."""
    async with database.unit_of_work(read_only=True) as session:
        found = await session.scalar(
            select(IdempotencyKey).where(
                IdempotencyKey.owner_id == claim.owner_id,
                IdempotencyKey.key == claim.key,
                IdempotencyKey.expires_at > utcnow(),
            )
        )
    if found is not None and found.fingerprint != claim.fingerprint:
        raise KeyReusedError
    return found


async def take(session: AsyncSession) -> None:
    """Write the request's key, if it has one, into this transaction.

    Raises InProgressError where the key has been written since the request came.
    """
    claim = current.get()
    if claim is None:
        return
    # Waits here for a twin whose transaction is open.
    connection = await session.connection()
    take = _TAKE.construct_for(connection.dialect.name)
    written = await connection.execute(take, _values(claim, None))
    if changed_rows(written) == 0:
        raise InProgressError
    claim.taken = True
    claim.session = session


def once(script: Script[T], *, resource_id: UUID) -> Script[T]:
    """The same for a transaction that is a script.

    `resource_id` is the reply whose stream is the answer.
    """
    claim = current.get()
    return script if claim is None else _once(claim, script, resource_id)


def _once(claim: Claim, script: Script[T], resource_id: UUID) -> Script[T]:
    written = yield _TAKE(**_values(claim, resource_id))
    if written.rowcount == 0:
        raise InProgressError
    claim.taken = True
    return (yield from script)


def _values(claim: Claim, resource_id: UUID | None) -> dict[str, Any]:
    now = utcnow()
    return {
        "id": uuid7(),
        "owner_id": claim.owner_id,
        "key": claim.key,
        "fingerprint": claim.fingerprint,
        "resource_id": resource_id,
        "created_at": now,
        "expires_at": now + _KEEP,
        "now": now,
    }


def _taking(insert: _Insert) -> _Insert:
    columns = ("id", "owner_id", "key", "fingerprint", "resource_id", "created_at",
               "expires_at")  # fmt: skip
    nothing = dict.fromkeys(("status", "media_type", "body"))
    fresh = {name: insert.excluded[name] for name in columns[3:]}
    return insert.values(
        {name: bindparam(name) for name in columns}
    ).on_conflict_do_update(
        index_elements=["owner_id", "key"],
        set_={**fresh, **nothing},
        where=IdempotencyKey.expires_at <= bindparam("now", type_=UtcDateTime()),
    )


_TAKE = Statement(
    _taking(sqlite.insert(IdempotencyKey)),
    postgresql=_taking(postgresql.insert(IdempotencyKey)),
)


async def record(
    claim: Claim,
    *,
    status: int,
    media_type: str | None,
    body: bytes | None,
    resource_id: UUID | None,
) -> None:
    """Store the answer beside what it tells of; None for a `body` that is secret."""
    assert claim.session is not None
    await claim.session.execute(
        update(IdempotencyKey)
        .where(
            IdempotencyKey.owner_id == claim.owner_id, IdempotencyKey.key == claim.key
        )
        .values(
            status=status, media_type=media_type, body=body, resource_id=resource_id
        )
    )


async def release(database: Database, claim: Claim) -> None:
    """Let the request be tried again: it was taken on, and failed on our side."""
    async with database.unit_of_work() as session:
        await session.execute(
            delete(IdempotencyKey).where(
                IdempotencyKey.owner_id == claim.owner_id,
                IdempotencyKey.key == claim.key,
            )
        )


async def purge(database: Database) -> None:
    await database.delete_in_chunks(
        IdempotencyKey, IdempotencyKey.expires_at <= utcnow()
    )
