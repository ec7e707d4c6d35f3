"""Every table, and whose its rows are: what exports show and erasures leave nothing of.

A table is in exactly one of the lists below, which a test compares with the models.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from sqlalchemy import Column, ColumnElement, Table, select

from app.models import Base

_USERS = Base.metadata.tables["users"]


@dataclass(frozen=True, slots=True)
class Owned:
    """Each row belongs to one user, to whom foreign keys lead.

    `by` is the column that holds the user's id where no foreign key does. Exports leave
    out the `hidden` columns, or all of it where it says why. Erasures delete the rows,
    or where it says why they are kept, empty the `cleared` columns: what stays names a
    person by an id that leads to nobody any more.
    """

    by: str | None = None
    hidden: frozenset[str] = frozenset()
    not_exported: str | None = None
    kept: str | None = None
    cleared: frozenset[str] = frozenset()


OWNED: Mapping[str, Owned] = {
    "users": Owned(hidden=frozenset({"password_hash"})),
    "deleted_users": Owned(not_exported="only of accounts that nobody can log in to"),
    "user_sessions": Owned(),
    "refresh_tokens": Owned(not_exported="hashes of secrets, and nothing else"),
    "mail_links": Owned(not_exported="secrets for an hour or some days, as hashes"),
    "authenticators": Owned(by="account_id", hidden=frozenset({"secret"})),
    "recovery_codes": Owned(not_exported="hashes of secrets, and nothing else"),
    "login_counters": Owned(
        by="account_id", not_exported="keyed hashes, gone after some days"
    ),
    "identities": Owned(),
    "oidc_codes": Owned(not_exported="hashes of codes, good for minutes"),
    "api_keys": Owned(hidden=frozenset({"key_hash", "previous_hash"})),
    "reported_usage": Owned(),
    "files": Owned(),
    "file_texts": Owned(not_exported="the words of files, which are exported"),
    "projects": Owned(),
    "project_members": Owned(),
    "project_documents": Owned(
        hidden=frozenset({"version", "terms", "embedder", "embedded"})
    ),
    "chunks": Owned(not_exported="the texts of documents, again, in pieces"),
    "postings": Owned(not_exported="which words these have, as numbers"),
    "chunk_vectors": Owned(not_exported="what these mean, as numbers"),
    "chats": Owned(),
    "messages": Owned(hidden=frozenset({"lease_expires_at", "resumed_from"})),
    "message_summaries": Owned(),
    "message_logs": Owned(hidden=frozenset({"messages"})),
    "chat_shares": Owned(hidden=frozenset({"token_hash"})),
    "search_entries": Owned(not_exported="the words of messages and titles, again"),
    "credit_accounts": Owned(),
    "credit_leases": Owned(not_exported="what processes hold just now"),
    "key_leases": Owned(not_exported="the same of API keys"),
    "credit_entries": Owned(
        by="user_id", kept="the ledger: amounts and ids", cleared=frozenset({"note"})
    ),
    "usage_days": Owned(by="user_id", kept="figures by id"),
    "idempotency_keys": Owned(
        by="owner_id", not_exported="answers to calls, again, for a day"
    ),
}
"""In the order of an export."""

NAMING: Mapping[str, str] = {
    "audit_events": "ids, and details, which an erasure empties",
    "jobs": "ids and addresses in arguments, which an erasure looks through",
}
"""They tell of several people, or of nobody; `erasure` knows what to do with each."""

OTHERS: Mapping[str, str] = {
    "admins": "people who run the installation, no users of it",
    "support_staff": "people who help users, none of them",
    "desk_sessions": "of these two",
    "desk_refresh_tokens": "of these two",
    "oidc_logins": "hashes of what browsers come back with, good for minutes",
    "audit_chain": "where the chain of audit events ends",
    "ip_rules": "which addresses may use what, as admins wrote it",
    "service_keys": "keys of external applications, which are nobody's",
    "credit_holders": "processes that lease credits",
    "settings": "what admins changed of the installation's settings",
    "registered_models": "what admins say of models",
    "routes": "names that stand for several models",
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
    (key,) = column.foreign_keys
    return column.in_(select(key.column).where(owned_by(parent, user_id)))


def _link(table: Table) -> tuple[Column[Any], Table]:
    """The column that leads towards `users`, and the table that it leads to."""
    if (by := OWNED[table.name].by) is not None:
        return table.c[by], _USERS
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
