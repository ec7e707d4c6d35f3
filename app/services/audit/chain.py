"""The chain of audit events: each one's keyed hash covers the hash before it.

Who may write to the database but has not the installation's keys can neither change,
add, nor take out an event unseen: the chain's key is stored sealed. Nor can they cut
off the end: the last heads are also in a file (`core/anchor`).
"""

import hmac
import secrets
from collections.abc import Mapping
from typing import Any, NamedTuple

import orjson
import structlog
from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.anchor import Anchor
from app.core.config import ConfigError
from app.core.crypto import Crypto, CryptoError
from app.core.database import Database, after_commit, settings_of
from app.models import AuditChain, AuditEvent

_ID = 1
_KEY_PLACE = f"audit_chain.key:{_ID}"
NOTHING = b"\0" * 32
"""The hash before the first event's."""
_log = structlog.get_logger()


class Head(NamedTuple):
    seq: int
    hash: bytes
    key: bytes


async def require_key(database: Database, crypto: Crypto) -> None:
    """Raises ConfigError where our keys are not those of what is stored.

    Nothing that is audited could be done then, and no sealed column be read.
    """
    async with database.unit_of_work(read_only=True) as session:
        sealed = await session.scalar(select(AuditChain.key))
    try:
        if sealed is not None:
            open_key(crypto, sealed)
    except CryptoError as error:
        raise ConfigError(
            "ENCRYPTION_KEY: does not open what this database holds: put the key back "
            "that was in use, behind a newer one if there is one (where none was set, "
            "SECRET_KEY took its place)"
        ) from error


async def append(session: AsyncSession, events: list[dict[str, Any]]) -> None:
    """Give events their numbers and hashes; whoever comes next waits for the commit."""
    settings = settings_of(session)
    seq, head, key = await _lock_head(session, Crypto(settings.security))
    rows = []
    for event in events:
        seq += 1
        row = {**event, "seq": seq}
        row["details_hash"] = details_hash(key, seq, event["details"])
        row["hash"] = head = event_hash(key, head, row)
        rows.append(row)
    await session.execute(insert(AuditEvent), rows)
    await session.execute(update(AuditChain).values(seq=seq, hash=head))
    anchor = Anchor(settings.server.data_dir)
    after_commit(session, lambda: _write_anchor(anchor, seq, head))


def event_hash(key: bytes, previous: bytes, event: Mapping[str, Any]) -> bytes:
    covered = [
        event["seq"],
        event["created_at"].isoformat(),
        event["actor_kind"],
        event["actor_id"],
        event["action"],
        event["target_kind"],
        event["target_id"],
        event["details_hash"].hex(),
    ]
    # str: PostgreSQL's driver has a UUID of its own.
    return hmac.digest(key, previous + orjson.dumps(covered, default=str), "sha256")


def details_hash(key: bytes, seq: int, details: dict[str, Any]) -> bytes:
    """With the event's number, so that equal details do not look equal."""
    covered = orjson.dumps([seq, details], option=orjson.OPT_SORT_KEYS)
    return hmac.digest(key, b"details" + covered, "sha256")


async def _lock_head(session: AsyncSession, crypto: Crypto) -> Head:
    statement = select(AuditChain.seq, AuditChain.hash, AuditChain.key)
    found = (await session.execute(statement.with_for_update())).one_or_none()
    if found is None:
        await _begin_chain(session, crypto)
        found = (await session.execute(statement.with_for_update())).one()
    return Head(found.seq, found.hash, open_key(crypto, found.key))


def open_key(crypto: Crypto, sealed: str) -> bytes:
    """The chain's own key; raises CryptoError where ours does not open it."""
    return bytes.fromhex(crypto.open(sealed, place=_KEY_PLACE))


async def _begin_chain(session: AsyncSession, crypto: Crypto) -> None:
    key = crypto.seal(secrets.token_hex(32), place=_KEY_PLACE)
    first = insert(AuditChain).values(id=_ID, seq=0, hash=NOTHING, key=key)
    try:
        async with session.begin_nested():
            await session.execute(first)
    except IntegrityError:  # another transaction began it at the same moment
        return


def _write_anchor(anchor: Anchor, seq: int, head: bytes) -> None:
    try:
        anchor.write(seq, head)
    except OSError as error:
        _log.warning("audit anchor not written", seq=seq, error=str(error))
