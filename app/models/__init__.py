"""Every table; Alembic and the tests read `Base.metadata` from here."""

from app.models.account import DeletedUser
from app.models.apikey import ApiKey, KeyLimits
from app.models.audit import AuditChain, AuditEvent
from app.models.base import Base, first_id
from app.models.chat import Chat, ChatShare, SearchEntry
from app.models.credits import (
    CreditAccount,
    CreditEntry,
    CreditHolder,
    CreditLease,
    KeyLease,
)
from app.models.desk import (
    Admin,
    DeskAccount,
    DeskRefreshToken,
    DeskSession,
    SupportStaff,
)
from app.models.file import File, FileText
from app.models.idempotency import IdempotencyKey
from app.models.ip_rule import IpRule
from app.models.job import Job
from app.models.knowledge import Chunk, ChunkVector, Posting, ProjectDocument
from app.models.link import MailLink
from app.models.lockout import LoginCounter
from app.models.message import Message, MessageSummary
from app.models.message_log import MessageLog
from app.models.mfa import Authenticator, RecoveryCode
from app.models.model import RegisteredModel
from app.models.oidc import Identity, OidcCode, OidcLogin
from app.models.plan import FIRST_PLAN, Limits, Plan
from app.models.project import Project, ProjectMember
from app.models.route import ModelRoute
from app.models.servicekey import ReportedUsage, ServiceKey
from app.models.setting import Setting
from app.models.usage import UsageDay
from app.models.user import AnyRefreshToken, RefreshToken, User, UserSession

MADE_BY_MIGRATIONS = ("search_index", "ix_search_entries_terms", "ix_users_beginning")
"""Beginnings of the names of what one database alone has, so no model describes it.

SQLite's full-text index is a table with tables of its own; PostgreSQL's is an index on
an expression, and so are those by which users are found.
"""

__all__ = [
    "FIRST_PLAN",
    "MADE_BY_MIGRATIONS",
    "Admin",
    "AnyRefreshToken",
    "ApiKey",
    "AuditChain",
    "AuditEvent",
    "Authenticator",
    "Base",
    "Chat",
    "ChatShare",
    "Chunk",
    "ChunkVector",
    "CreditAccount",
    "CreditEntry",
    "CreditHolder",
    "CreditLease",
    "DeletedUser",
    "DeskAccount",
    "DeskRefreshToken",
    "DeskSession",
    "File",
    "FileText",
    "IdempotencyKey",
    "Identity",
    "IpRule",
    "Job",
    "KeyLease",
    "KeyLimits",
    "Limits",
    "LoginCounter",
    "MailLink",
    "Message",
    "MessageLog",
    "MessageSummary",
    "ModelRoute",
    "OidcCode",
    "OidcLogin",
    "Plan",
    "Posting",
    "Project",
    "ProjectDocument",
    "ProjectMember",
    "RecoveryCode",
    "RefreshToken",
    "RegisteredModel",
    "ReportedUsage",
    "SearchEntry",
    "ServiceKey",
    "Setting",
    "SupportStaff",
    "UsageDay",
    "User",
    "UserSession",
    "first_id",
]
