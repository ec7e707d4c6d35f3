"""Puts sealed columns under the newest key."""

import asyncio

from sqlalchemy.exc import SQLAlchemyError

from app.cli.terminal import fail, load_settings_or_exit, reason
from app.core.crypto import Crypto
from app.core.database import Database
from app.core.exceptions import AppError
from app.services.sealed import Rotation
from app.services.sealed import rotate as rotate_columns


def rotate() -> list[Rotation]:
    try:
        return asyncio.run(_rotate())
    except (AppError, SQLAlchemyError, OSError) as error:
        fail(f"{reason(error)}: nothing is lost, run it again")


async def _rotate() -> list[Rotation]:
    settings = load_settings_or_exit()
    database = Database(settings)
    try:
        return await rotate_columns(database, Crypto(settings.security))
    finally:
        await database.close()
