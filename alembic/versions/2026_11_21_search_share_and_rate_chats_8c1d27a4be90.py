"""Pinned and temporary chats, ratings, shares, search, idempotency keys.

Revision ID: 8c1d27a4be90
Revises: 5e13f3b9d225
"""

from datetime import UTC, datetime
from uuid import uuid4

import sqlalchemy as sa

from alembic import op

revision = "8c1d27a4be90"
down_revision = "5e13f3b9d225"
branch_labels = None
depends_on = None

TERMS = "array_to_tsvector(string_to_array(terms, ' '))"


def upgrade() -> None:
    sqlite = op.get_bind().dialect.name == "sqlite"
    _change_chats()
    _change_messages()
    _create_shares()
    _create_idempotency_keys()
    op.create_table(
        "search_entries",
        sa.Column(
            "id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("chat_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=True),
        sa.Column("terms", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chat_id"],
            ["chats.id"],
            name=op.f("fk_search_entries_chat_id_chats"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["messages.id"],
            name=op.f("fk_search_entries_message_id_messages"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_search_entries")),
        sa.UniqueConstraint("message_id", name=op.f("uq_search_entries_message_id")),
    )
    op.create_index("ix_search_entries_chat_id", "search_entries", ["chat_id"])
    if sqlite:
        _create_sqlite_index()
    else:
        op.execute(
            "CREATE INDEX ix_search_entries_terms ON search_entries "
            f"USING gin ({TERMS})"
        )
    _ask_for_index()


def _change_chats() -> None:
    op.drop_index("ix_chats_user_id_archived_updated_at", "chats")
    with op.batch_alter_table("chats") as batch:
        for name in ("pinned", "temporary"):
            batch.add_column(
                sa.Column(name, sa.Boolean(), nullable=False, server_default=sa.false())
            )
    # A default for the rows that are there; new ones get theirs from the model.
    with op.batch_alter_table("chats") as batch:
        for name in ("pinned", "temporary"):
            batch.alter_column(name, server_default=None)
    op.create_index(
        "ix_chats_user_id_temporary_archived_pinned_updated_at",
        "chats",
        ["user_id", "temporary", "archived", "pinned", "updated_at", "id"],
    )
    op.create_index(
        "ix_chats_updated_at",
        "chats",
        ["updated_at"],
        sqlite_where=sa.text('"temporary" = 1'),
        postgresql_where=sa.text('"temporary"'),
    )


def _change_messages() -> None:
    op.drop_index("ix_messages_parent_id", "messages")
    with op.batch_alter_table("messages") as batch:
        batch.add_column(
            sa.Column(
                "rating", sa.SmallInteger(), nullable=False, server_default=sa.text("0")
            )
        )
        batch.add_column(sa.Column("rating_comment", sa.Text(), nullable=True))
        batch.drop_constraint("fk_messages_parent_id_messages", type_="foreignkey")
        batch.create_foreign_key(
            batch.f("fk_messages_parent_id_messages"),
            "messages",
            ["parent_id"],
            ["id"],
        )
        batch.create_check_constraint(
            batch.f("ck_messages_rating"), "rating IN (-1, 0, 1)"
        )
    with op.batch_alter_table("messages") as batch:
        batch.alter_column("rating", server_default=None)
    op.create_index(
        "ix_messages_parent_id_chat_id", "messages", ["parent_id", "chat_id"]
    )


def _create_shares() -> None:
    op.create_table(
        "chat_shares",
        sa.Column("chat_id", sa.Uuid(), nullable=False),
        sa.Column("message_id", sa.Uuid(), nullable=False),
        sa.Column("token_hash", sa.LargeBinary(length=32), nullable=False),
        sa.Column("title", sa.String(length=200), nullable=True),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("citations", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["chat_id"],
            ["chats.id"],
            name=op.f("fk_chat_shares_chat_id_chats"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["message_id"],
            ["messages.id"],
            name=op.f("fk_chat_shares_message_id_messages"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_chat_shares")),
        sa.UniqueConstraint("chat_id", name=op.f("uq_chat_shares_chat_id")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_chat_shares_token_hash")),
    )
    op.create_index("ix_chat_shares_message_id", "chat_shares", ["message_id"])


def _create_idempotency_keys() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("user_id", sa.Uuid(), nullable=False),
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("fingerprint", sa.LargeBinary(length=32), nullable=False),
        sa.Column("resource_id", sa.Uuid(), nullable=True),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("media_type", sa.String(length=100), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("id", sa.Uuid(), nullable=False),
        sa.ForeignKeyConstraint(
            ["user_id"],
            ["users.id"],
            name=op.f("fk_idempotency_keys_user_id_users"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_idempotency_keys")),
        sa.UniqueConstraint(
            "user_id", "key", name=op.f("uq_idempotency_keys_user_id_key")
        ),
    )
    op.create_index(
        "ix_idempotency_keys_expires_at", "idempotency_keys", ["expires_at"]
    )


def _create_sqlite_index() -> None:
    """The index holds no text of its own: triggers tell it what comes and goes."""
    op.execute(
        "CREATE VIRTUAL TABLE search_index USING fts5(terms, content='search_entries', "
        "content_rowid='id', tokenize='ascii', detail='none', columnsize=0, "
        "prefix='2 3')"
    )
    add = "INSERT INTO search_index(rowid, terms) VALUES (new.id, new.terms);"
    remove = (
        "INSERT INTO search_index(search_index, rowid, terms) "
        "VALUES ('delete', old.id, old.terms);"
    )
    for event, actions in (
        ("INSERT", add),
        ("DELETE", remove),
        ("UPDATE", f"{remove} {add}"),
    ):
        op.execute(
            f"CREATE TRIGGER search_entries_{event.lower()} AFTER {event} "
            f"ON search_entries BEGIN {actions} END"
        )


def _ask_for_index() -> None:
    """Have a job index what is there; the start does not wait for it."""
    chats = sa.table("chats", sa.column("id", sa.Uuid()))
    if op.get_bind().scalar(sa.select(chats.c.id).limit(1)) is None:
        return
    jobs = sa.table(
        "jobs",
        sa.column("id", sa.Uuid()),
        sa.column("name", sa.String()),
        sa.column("args", sa.JSON()),
        sa.column("state", sa.String()),
        sa.column("run_at", sa.DateTime(timezone=True)),
        sa.column("attempts", sa.Integer()),
        sa.column("max_attempts", sa.Integer()),
        sa.column("created_at", sa.DateTime(timezone=True)),
    )
    sqlite = op.get_bind().dialect.name == "sqlite"
    now = datetime.now(UTC).replace(tzinfo=None if sqlite else UTC)
    op.bulk_insert(
        jobs,
        [
            {
                "id": uuid4(),
                "name": "chat.index",
                "args": {},
                "state": "queued",
                "run_at": now,
                "attempts": 0,
                "max_attempts": 5,
                "created_at": now,
            }
        ],
    )


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TABLE search_index")
    op.drop_table("search_entries")
    op.drop_table("idempotency_keys")
    op.drop_table("chat_shares")
    op.execute("DELETE FROM jobs WHERE name IN ('chat.index', 'chat.purge')")

    op.drop_index("ix_messages_parent_id_chat_id", "messages")
    with op.batch_alter_table("messages") as batch:
        batch.drop_constraint(batch.f("ck_messages_rating"), type_="check")
        batch.drop_column("rating_comment")
        batch.drop_column("rating")
        batch.drop_constraint("fk_messages_parent_id_messages", type_="foreignkey")
        batch.create_foreign_key(
            batch.f("fk_messages_parent_id_messages"),
            "messages",
            ["parent_id"],
            ["id"],
            ondelete="CASCADE",
        )
    op.create_index("ix_messages_parent_id", "messages", ["parent_id"])

    op.drop_index("ix_chats_updated_at", "chats")
    op.drop_index("ix_chats_user_id_temporary_archived_pinned_updated_at", "chats")
    with op.batch_alter_table("chats") as batch:
        batch.drop_column("temporary")
        batch.drop_column("pinned")
    op.create_index(
        "ix_chats_user_id_archived_updated_at",
        "chats",
        ["user_id", "archived", "updated_at", "id"],
    )
