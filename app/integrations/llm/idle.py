"""Calls that end while no provider is at work on them.

Whoever calls one off pays for what was asked, though the provider has told no figures:
it works on it, and bills that. Not so where it has not been asked yet, or has refused
and is to be asked again. Only whoever waits there knows it, so the cancellation itself
carries it up.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

_NOTE = "No provider was at work on it."


@contextmanager
def idle() -> Iterator[None]:
    """For a wait in which no provider works on the call."""
    try:
        yield
    except asyncio.CancelledError as error:
        note_idle(error)
        raise


def note_idle(error: asyncio.CancelledError) -> None:
    error.add_note(_NOTE)


def was_idle(error: asyncio.CancelledError) -> bool:
    """Whether what was called off had been waiting for no provider."""
    return _NOTE in getattr(error, "__notes__", ())
