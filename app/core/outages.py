"""Which of the database's failures pass: it is away, busy, silent (TRUST F6).

The drivers tell of it in many ways, and asyncpg by bare OSErrors and TimeoutErrors,
which might be anybody's. Here all of them become errors of SQLAlchemy's.
"""

from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import AsyncAdaptedQueuePool, PoolProxiedConnection

from app.core.exceptions import UnavailableError

UNREACHABLE = (DBAPIError, PoolTimeoutError, ConnectionError)

_OUTAGES = ("08", "25006", "40", "53", "57", "58")
"""What PostgreSQL's SQLSTATEs of these beginnings tell passes: a lost connection, a
standby that takes no writes, a deadlock, no disk or memory, a shutdown or a statement
that took too long, its system."""


def unavailable() -> UnavailableError:
    return UnavailableError(
        "The database cannot be reached just now; nothing was changed.",
        code="database_unavailable",
    )


def is_outage(error: Exception) -> bool:
    """Tell a lost or busy database from a statement that is wrong."""
    if not isinstance(error, DBAPIError):
        return True
    if error.connection_invalidated or error.statement is None:
        return True
    if state := getattr(error.orig, "sqlstate", None):
        return bool(state.startswith(_OUTAGES))
    if not isinstance(error, (OperationalError, InterfaceError)):
        return False
    reason = str(error.orig).lower()
    return "locked" in reason or "disk" in reason or "connection" in reason


class Pool(AsyncAdaptedQueuePool):
    _sqla_logger_namespace = "sqlalchemy.pool"  # what it logs is not ours to tell

    def connect(self) -> PoolProxiedConnection:
        """Raises OperationalError where the other end is silent as it is asked."""
        try:
            return super().connect()
        except TimeoutError as error:
            raise _unanswered(error) from error


def watch(engine: Engine) -> None:
    event.listen(engine, "do_connect", _connect)
    event.listen(engine, "handle_error", _hide_row)
    event.listen(engine, "handle_error", _give_up)


def _connect(dialect: Any, _record: Any, arguments: Any, options: Any) -> Any:
    """Connect; a failure is the driver's error, where asyncpg gives a bare OSError."""
    try:
        return dialect.connect(*arguments, **options)
    except OSError as error:
        reason = str(error) or type(error).__name__
        raise dialect.loaded_dbapi.OperationalError(reason) from error


def _hide_row(context: Any) -> None:
    """PostgreSQL's error quotes the row in its detail, and a traceback shows that."""
    cause = context.original_exception.__cause__
    if getattr(cause, "detail", None):
        cause.detail = None


def _give_up(context: Any) -> None:
    """A connection that nothing is heard of: to end its transaction is to wait again.

    The others may be well, and are asked before they are used.
    """
    error = context.original_exception
    if isinstance(error, TimeoutError):
        context.is_disconnect = True
        context.invalidate_pool_on_disconnect = False
        raise _unanswered(error) from error


def _unanswered(error: TimeoutError) -> OperationalError:
    return OperationalError(None, None, error, hide_parameters=True)
