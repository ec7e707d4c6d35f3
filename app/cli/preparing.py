"""What there must be before anything runs: keys, folders, the database's schema.

Each step that fails tells so in one line, with the mend.
"""

import os
import tempfile
from pathlib import Path

from app.cli.terminal import fail, reason, say
from app.core.config import ConfigError, Settings, is_first_start
from app.core.env_example import fresh_keys


def write_first_env() -> None:
    """Write `.env` with fresh keys, where nothing has been set up yet."""
    try:
        if is_first_start() and _write_new(Path(".env"), _first_env()):
            say("wrote .env with fresh keys; .env.example tells every setting")
    except ConfigError as error:
        fail(str(error), code=2)
    except OSError as error:
        fail(
            f"cannot write .env into {Path.cwd()} ({error.strerror}): make the folder "
            "writable, or set SECRET_KEY and ENCRYPTION_KEY in the environment"
        )


def _first_env() -> str:
    lines = (f"{name}={value}\n" for name, value in fresh_keys().items())
    return "# Made by the first start. .env.example tells every setting.\n" + "".join(
        lines
    )


def _write_new(path: Path, text: str) -> bool:
    """Write a file for the owner's eyes; whole or not at all, never over another."""
    descriptor, temporary = tempfile.mkstemp(prefix=".env.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        return True
    finally:
        Path(temporary).unlink()


def make_folder(folder: Path, variable: str) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"can be written")
    except OSError as error:
        fail(
            f"{variable}: cannot write into {folder} ({error.strerror}): name a place "
            "that this user may write"
        )


def migrate(settings: Settings) -> None:
    from sqlalchemy import make_url
    from sqlalchemy.exc import SQLAlchemyError

    from app.core.migrations import MigrationError, upgrade

    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and url.database:
        make_folder(Path(url.database).parent, "DATABASE_URL")
    try:
        upgrade(settings)
    except MigrationError as error:
        fail(str(error))
    except (SQLAlchemyError, OSError) as error:
        fail(f"DATABASE_URL: the database cannot be used: {reason(error)}")
