"""Requests that are sent twice and happen once: the `Idempotency-Key` header.

The key is written in the transaction of what the request does. So a crash leaves both
or neither, and of twins the second waits in the database, whichever process has it,
until the first is done. Only what succeeded is kept: what failed has changed nothing,
and may be tried again.
"""

import hashlib
import re
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from uuid_utils.compat import uuid7

from app.core.database import Database, changed_rows, utcnow
from app.core.exceptions import ConflictError, FieldError, ValidationFailedError
from app.models import IdempotencyKey

_KEEP = timedelta(days=1)
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
_INSERTS: dict[str, Callable[[Any], sqlite.Insert | postgresql.Insert]] = {
    "sqlite": sqlite.insert,
    "postgresql": postgresql.insert,
}


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

    user_id: UUID
    key: str
    fingerprint: bytes
    taken: bool = False
    session: AsyncSession | None = None

    @classmethod
    def of(cls, user_id: UUID, key: str, request: Iterable[bytes]) -> "Claim":
        """Raises ValidationFailedError for a key that cannot be one."""
        if not _KEY.fullmatch(key):
            message = "must be 1 to 255 visible ASCII characters"
            raise ValidationFailedError(
                f"Idempotency-Key {message}.",
                errors=[FieldError(path="Idempotency-Key", message=message)],
            )
        digests = b"".join(hashlib.sha256(part).digest() for part in request)
        return cls(user_id, key, hashlib.sha256(digests).digest())


current: ContextVar[Claim | None] = ContextVar("idempotency_claim", default=None)
"""Of the request that is being handled; None where it has no key."""


async def find(database: Database, claim: Claim) -> IdempotencyKey | None:
    """What the key stands for already; raises KeyReusedError for another request."""
    async with database.unit_of_work(read_only=True) as session:
        found = await session.scalar(
            select(IdempotencyKey).where(
                IdempotencyKey.user_id == claim.user_id,
                IdempotencyKey.key == claim.key,
                IdempotencyKey.expires_at > utcnow(),
            )
        )
    if found is not None and found.fingerprint != claim.fingerprint:
        raise KeyReusedError
    return found


async def take(session: AsyncSession, *, resource_id: UUID | None = None) -> None:
    """Write the request's key, if it has one, into this transaction.

    `resource_id` is the reply whose stream is the answer. Raises InProgressError where
    the key has been written since the request came.
    """
    claim = current.get()
    if claim is None:
        return
    now = utcnow()
    values = {
        "fingerprint": claim.fingerprint,
        "resource_id": resource_id,
        "status": None,
        "media_type": None,
        "body": None,
        "created_at": now,
        "expires_at": now + _KEEP,
    }
    # Waits here for a twin whose transaction is open.
    insert = _INSERTS[session.get_bind().dialect.name](IdempotencyKey)
    written = await session.execute(
        insert.values(
            id=uuid7(), user_id=claim.user_id, key=claim.key, **values
        ).on_conflict_do_update(
            index_elements=["user_id", "key"],
            set_=values,
            where=IdempotencyKey.expires_at <= now,
        )
    )
    if changed_rows(written) == 0:
        raise InProgressError
    claim.taken = True
    if resource_id is None:
        claim.session = session


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
        .where(IdempotencyKey.user_id == claim.user_id, IdempotencyKey.key == claim.key)
        .values(
            status=status, media_type=media_type, body=body, resource_id=resource_id
        )
    )


async def release(database: Database, claim: Claim) -> None:
    """Let the request be tried again: it was taken on, and failed on our side."""
    async with database.unit_of_work() as session:
        await session.execute(
            delete(IdempotencyKey).where(
                IdempotencyKey.user_id == claim.user_id,
                IdempotencyKey.key == claim.key,
            )
        )


async def purge(session: AsyncSession) -> None:
    await session.execute(
        delete(IdempotencyKey).where(IdempotencyKey.expires_at <= utcnow())
    )
