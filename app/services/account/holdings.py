"""Every table, and whose its rows are: what exports show and erasures leave nothing of.

A table is in exactly one of the lists below, which a test compares with the models.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy import ColumnElement, Table, select

from app.models import Base

_USERS = Base.metadata.tables["users"]


@dataclass(frozen=True, slots=True)
class Owned:
    """Each row belongs to one user: foreign keys lead to `users`, and cascade.

    Exports leave out the `hidden` columns, or all of it where it says why.
    """

    hidden: frozenset[str] = frozenset()
    not_exported: str | None = None


OWNED: Mapping[str, Owned] = {
    "users": Owned(hidden=frozenset({"password_hash"})),
    "deleted_users": Owned(not_exported="only of accounts that nobody can log in to"),
    "user_sessions": Owned(),
    "refresh_tokens": Owned(not_exported="hashes of secrets, and nothing else"),
    "api_keys": Owned(hidden=frozenset({"key_hash"})),
    "reported_usage": Owned(),
    "chats": Owned(),
    "messages": Owned(hidden=frozenset({"lease_expires_at", "resumed_from"})),
    "chat_shares": Owned(hidden=frozenset({"token_hash"})),
    "search_entries": Owned(not_exported="the words of messages and titles, again"),
    "credit_accounts": Owned(),
    "credit_leases": Owned(not_exported="what processes hold just now"),
    "idempotency_keys": Owned(not_exported="answers to calls, again, for a day"),
}
"""In the order of an export."""

NAMING: Mapping[str, str] = {
    "audit_events": "ids alone, once an erasure has emptied the details",
    "credit_entries": "the ledger: amounts and ids",
    "usage_days": "how much was used of what, by id",
}
"""They stay, and name a person by an id that leads to nobody any more."""

ADDRESSING: Mapping[str, str] = {
    "jobs": "its arguments may hold ids and addresses; an erasure looks for them",
}
"""No foreign key leads from them, so an erasure looks for the person's rows itself."""

OTHERS: Mapping[str, str] = {
    "audit_chain": "where the chain of audit events ends",
    "service_keys": "keys of external applications, which are nobody's",
    "credit_holders": "processes that lease credits",
    "plans": "what there is to choose from",
}
"""Nothing in them is of a user."""


def tables() -> Iterator[Table]:
    """The owned ones."""
    return (Base.metadata.tables[name] for name in OWNED)


def heads() -> Iterator[Table]:
    """Those whose rows name their user themselves; the others hang on these."""
    others = (table for table in tables() if table is not _USERS)
    return (table for table in others if _link(table)[1] is _USERS)


def owned_by(table: Table, user_id: UUID) -> ColumnElement[bool]:
    """Which rows of an owned table are the user's."""
    if table is _USERS:
        return table.c.id == user_id
    column, parent = _link(table)
    if parent is _USERS:
        return column == user_id
    return column.in_(select(parent.c.id).where(owned_by(parent, user_id)))


def _link(table: Table) -> tuple[ColumnElement[UUID], Table]:
    """The column that leads towards `users`, and the table that it leads to."""
    links = [
        (key.parent, key.column.table)
        for key in table.foreign_keys
        if key.column.table is not table and key.column.table.name in OWNED
    ]
    # The shortest way first; what may be null leads nowhere for some rows.
    return min(
        links,
        key=lambda link: (link[1] is not _USERS, link[0].nullable, link[0].name),
    )
