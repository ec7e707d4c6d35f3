"""Every table; Alembic and the tests read `Base.metadata` from here."""

from app.models.base import Base
from app.models.chat import Chat
from app.models.job import Job
from app.models.message import Message
from app.models.user import RefreshToken, User, UserSession

__all__ = ["Base", "Chat", "Job", "Message", "RefreshToken", "User", "UserSession"]
