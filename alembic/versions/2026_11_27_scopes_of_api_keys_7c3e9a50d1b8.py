"""API keys get the scopes of the gateway; none may do more than before.

A new scope is given where the old ones held all that it allows: `chat` reads the
streams of replies, `read` sees all that keys can. What has no equal goes, and a key
that is left without any waits for its owner to choose. Back again it is the same.

Revision ID: 7c3e9a50d1b8
Revises: 4d0b7c92e1a5
"""

from collections.abc import Callable, Mapping

import sqlalchemy as sa

from alembic import op

revision = "7c3e9a50d1b8"
down_revision = "4d0b7c92e1a5"
branch_labels = None
depends_on = None

NEW: Mapping[str, frozenset[str]] = {
    "chat": frozenset({"chats:read", "chats:write"}),
    "models": frozenset({"models:read"}),
    "read": frozenset({"chats:read", "models:read", "profile:read", "usage:read"}),
}
"""What a key must have had for each of the new scopes."""

OLD: Mapping[str, frozenset[str]] = {
    "chats:read": frozenset({"read"}),
    "chats:write": frozenset({"chat"}),
    "models:read": frozenset({"models", "read"}),
    "profile:read": frozenset({"read"}),
    "usage:read": frozenset({"read"}),
}
"""On the way back: the new scopes of which any holds all of an old one."""

_KEYS = sa.table("api_keys", sa.column("id", sa.Uuid()), sa.column("scopes", sa.JSON()))


def upgrade() -> None:
    _replace(lambda held: {new for new, needed in NEW.items() if needed <= held})


def downgrade() -> None:
    _replace(lambda held: {old for old, enough in OLD.items() if enough & held})


def _replace(scopes_for: Callable[[set[str]], set[str]]) -> None:
    connection = op.get_bind()
    for key in connection.execute(sa.select(_KEYS)).all():
        held = set(key.scopes)
        foreign = {scope for scope in held if scope.startswith("ext:")}
        connection.execute(
            sa.update(_KEYS)
            .where(_KEYS.c.id == key.id)
            .values(scopes=sorted(scopes_for(held) | foreign))
        )
