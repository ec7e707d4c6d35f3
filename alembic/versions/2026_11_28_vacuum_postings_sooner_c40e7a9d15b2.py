"""PostgreSQL tidies up after new postings within a minute, however many there were.

Revision ID: c40e7a9d15b2
Revises: e71b5d2f90a4
"""

from alembic import op

revision = "c40e7a9d15b2"
down_revision = "e71b5d2f90a4"
branch_labels = None
depends_on = None

_OPTION = "autovacuum_vacuum_insert_scale_factor"


def upgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE postings SET ({_OPTION} = 0)")


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(f"ALTER TABLE postings RESET ({_OPTION})")
