"""How Alembic reaches our database.

`app.core.migrations` hands its open connection over; `alembic` on the command line
(to write a new migration, say) has this file ask it for one.
"""

from typing import Any, Literal

from sqlalchemy import Connection

from alembic import context
from app.core.config import get_settings
from app.core.migrations import run_with_connection
from app.models import MADE_BY_MIGRATIONS, Base


def render_item(kind: str, item: Any, _context: Any) -> str | Literal[False]:
    """Write our column types as the plain ones that they are in the database."""
    if kind == "type" and type(item).__name__ == "UtcDateTime":
        return "sa.DateTime(timezone=True)"
    return False


def is_described(
    _item: Any,
    name: str | None,
    _kind: str,
    reflected: bool,  # noqa: FBT001 - Alembic's own signature
    _other: Any,
) -> bool:
    """Whether models tell of it; the rest of what is there is left alone."""
    return not (reflected and str(name).startswith(MADE_BY_MIGRATIONS))


def migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=render_item,
        include_object=is_described,
        transactional_ddl=False,  # the caller's transaction holds all of it
    )
    context.run_migrations()


if (open_connection := context.config.attributes.get("connection")) is not None:
    migrate(open_connection)
else:
    run_with_connection(get_settings(), migrate)
