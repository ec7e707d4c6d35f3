"""Background work; importing this package registers every task under its name.

A task loads what its ids name and calls a service; it must be safe to run twice.
"""

from app.tasks import (
    account,
    apikey,
    auth,
    chat,
    desk,
    file,
    idempotency,
    job,
    knowledge,
    link,
    mail,
    message_log,
    project,
)

__all__ = [
    "account",
    "apikey",
    "auth",
    "chat",
    "desk",
    "file",
    "idempotency",
    "job",
    "knowledge",
    "link",
    "mail",
    "message_log",
    "project",
]
