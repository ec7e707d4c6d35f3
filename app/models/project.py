from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, Identified, Timestamped


class Project(Identified, Timestamped, Base):
    """Instructions and documents that several people's chats lean on.

    `user_id` is its owner, the one member without a row in `project_members`. The
    manual's project alone has none, and so no member at all: it is there for nobody.
    `token_limit` is how much of its documents one turn may get to see; null leaves it
    to the model's context window. One that was `deleted` is there for nobody, until a
    job has taken its documents out of the index.
    """

    __tablename__ = "projects"
    __table_args__ = (
        CheckConstraint(
            "context_mode IN ('auto', 'full', 'retrieval')", name="context_mode"
        ),
    )

    user_id: Mapped[UUID | None] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), index=True
    )
    name: Mapped[str] = mapped_column(String(200))
    instructions: Mapped[str | None] = mapped_column(Text)
    token_limit: Mapped[int | None]
    context_mode: Mapped[str] = mapped_column(String(16), default="auto")
    archived: Mapped[bool] = mapped_column(default=False)
    deleted: Mapped[bool] = mapped_column(default=False)


class ProjectMember(Identified, Timestamped, Base):
    """Somebody other than the owner who is in a project: an editor or a viewer."""

    __tablename__ = "project_members"
    __table_args__ = (
        UniqueConstraint("user_id", "project_id"),
        CheckConstraint("role IN ('editor', 'viewer')", name="role"),
    )

    user_id: Mapped[UUID] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    project_id: Mapped[UUID] = mapped_column(
        ForeignKey("projects.id", ondelete="CASCADE"), index=True
    )
    role: Mapped[str] = mapped_column(String(16))
