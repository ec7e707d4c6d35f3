"""Refresh tokens are stored under a keyed hash, so those of before are unknown.

Their sessions end here, openly: they would look alive until they expire, and never be
refreshed. Back again it is the same.

Revision ID: 9a41c7e05b2d
Revises: b3d05f7a62e8
"""

from alembic import op

revision = "9a41c7e05b2d"
down_revision = "b3d05f7a62e8"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for owner in ("user_sessions", "desk_sessions"):
        op.execute(
            f"UPDATE {owner} SET revoked_at = CURRENT_TIMESTAMP "  # noqa: S608 - named above
            "WHERE revoked_at IS NULL"
        )
    for tokens in ("refresh_tokens", "desk_refresh_tokens"):
        op.execute(f"DELETE FROM {tokens}")  # noqa: S608 - named above


def downgrade() -> None:
    upgrade()
