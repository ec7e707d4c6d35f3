"""Background work; importing this package registers every task under its name.

A task loads what its ids name and calls a service; it must be safe to run twice.
"""

from app.tasks import auth, chat, idempotency, job, mail

__all__ = ["auth", "chat", "idempotency", "job", "mail"]
