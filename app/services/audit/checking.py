"""Whether the chain of audit events is whole (TRUST D2)."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import exists, func, or_, select
from sqlalchemy.orm import aliased

from app.core.anchor import Anchor
from app.core.crypto import Crypto, CryptoError
from app.core.database import Database
from app.models import AuditChain, AuditEvent
from app.services.audit.chain import NOTHING, details_hash, event_hash, open_key

_BATCH = 1000
_MOST_FAULTS = 20
_ANCHOR_HINT = (
    "restore them from a backup; where you yourself put an older database here, "
    "delete the file"
)


@dataclass(slots=True)
class Findings:
    events: int = 0
    anchored: bool = False
    """Whether there is a file that a cut-off end would be seen by."""
    faults: list[str] = field(default_factory=list)
    """The first few, in words."""

    def add(self, fault: str) -> None:
        if len(self.faults) < _MOST_FAULTS:
            self.faults.append(fault)


async def check(database: Database, crypto: Crypto, anchor: Anchor) -> Findings:
    """Read all events. A server may go on adding to them meanwhile."""
    findings = Findings()
    try:
        # In this order: what was anchored is stored, and what is stored, in the chain.
        anchored = anchor.read()
    except ValueError:
        anchored = {}
        findings.add(f"{anchor.path} was changed: a line is not one of ours")
    findings.anchored = bool(anchored)
    async with database.unit_of_work(read_only=True) as session:
        last: int = await session.scalar(select(func.max(AuditEvent.seq))) or 0
    async with database.unit_of_work(read_only=True) as session:
        chain = await session.scalar(select(AuditChain))
    if chain is None:
        if last:
            findings.add("the chain's own row is gone, so no event can be verified")
    elif key := _open_key(chain, crypto, findings):
        await _follow(database, chain, key, anchored, findings)
        if last > chain.seq:
            findings.add(f"event {last} was added behind the end, {chain.seq}")
        await _find_emptied(database, findings)
    newest = max(anchored, default=0)
    if newest > (chain.seq if chain else 0):
        findings.add(
            f"the end is cut off: {anchor.path} tells of event {newest}: {_ANCHOR_HINT}"
        )
    return findings


def _open_key(chain: AuditChain, crypto: Crypto, findings: Findings) -> bytes | None:
    try:
        return open_key(crypto, chain.key)
    except CryptoError as error:
        findings.add(str(error))
        return None


async def _follow(
    database: Database,
    chain: AuditChain,
    key: bytes,
    anchored: dict[int, bytes],
    findings: Findings,
) -> None:
    """Compute each hash anew from the one before it."""
    seq, head = 0, NOTHING
    async for event in _events(database, chain.seq):
        findings.events += 1
        if event["seq"] == seq + 1:
            if event_hash(key, head, event) != event["hash"]:
                findings.add(f"event {event['seq']} was changed")
        else:
            findings.add(f"events {seq + 1} to {event['seq'] - 1} are missing")
        details = event["details"]
        if details is not None and event["details_hash"] != details_hash(
            key, event["seq"], details
        ):
            findings.add(f"the details of event {event['seq']} were changed")
        if anchored.get(event["seq"], event["hash"]) != event["hash"]:
            findings.add(f"event {event['seq']} is not the one that was anchored")
        seq, head = event["seq"], event["hash"]
    if seq != chain.seq:
        findings.add(f"events {seq + 1} to {chain.seq} are missing")
    elif head != chain.hash:
        findings.add("the chain's own row was changed")


async def _events(database: Database, last: int) -> AsyncIterator[dict[str, Any]]:
    columns = AuditEvent.__table__.c
    seq = 0
    while True:
        async with database.unit_of_work(read_only=True) as session:
            result = await session.execute(
                select(*columns)
                .where(columns.seq > seq, columns.seq <= last)
                .order_by(columns.seq)
                .limit(_BATCH)
            )
            batch = [dict(row) for row in result.mappings()]
        for event in batch:
            yield event
        if len(batch) < _BATCH:
            return
        seq = batch[-1]["seq"]


async def _find_emptied(database: Database, findings: Findings) -> None:
    """Details are only ever taken out with an erased person."""
    erasure = aliased(AuditEvent)
    erased: Any = exists().where(
        erasure.action == "user.erase",
        or_(
            erasure.target_id == AuditEvent.actor_id,
            erasure.target_id == AuditEvent.target_id,
        ),
    )
    statement = select(AuditEvent.seq).where(AuditEvent.details.is_(None), ~erased)
    async with database.unit_of_work(read_only=True) as session:
        for seq in await session.scalars(statement.limit(_MOST_FAULTS)):
            findings.add(f"the details of event {seq} were taken out")
