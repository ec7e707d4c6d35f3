from app.core.config.settings import Settings

CHANGEABLE = (
    "DEFAULT_MODEL",
    "MAX_OUTPUT_TOKENS",
    "RATE_LIMITS",
    "MESSAGE_LOG_TEXT",
    "MESSAGE_LOG_DAYS",
    "DELETED_USER_DAYS",
)
"""What admins may change while the server runs: all of it counts at once.

So whoever reads one of these reads it from `LiveSettings`, at the moment of its use.
"""


class LiveSettings:
    """The settings as they are now: those of the start, and what admins changed."""

    def __init__(self, started: Settings) -> None:
        self.started = started
        self.current = started
