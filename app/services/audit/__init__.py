"""What was done by whom: written once, never changed."""

from app.services.audit.events import SYSTEM, Actor, forget, record

__all__ = ["SYSTEM", "Actor", "forget", "record"]
