"""What an installation needs, looked at one by one; nothing is changed."""

import asyncio
import platform
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from aiosmtplib import SMTPException
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from app.cli.serve import open_port, why_not
from app.cli.terminal import reason
from app.core import logging
from app.core.anchor import Anchor
from app.core.config import ROOT, ConfigError, LogSettings, Settings, load_settings
from app.core.crypto import Crypto
from app.core.database import Database
from app.core.lock import holder
from app.core.migrations import alembic_config, run_with_connection
from app.integrations.mail.smtp import SmtpMailer
from app.integrations.storage.base import Storage, StorageError
from app.integrations.storage.choice import connect as connect_storage
from app.services.audit.checking import Findings, check
from app.services.runtime import Runtime

_OLDEST_PYTHON = (3, 11)
_LITTLE_DISK = 2**30
_NO_DISK = 100 * 2**20

State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    state: State
    detail: str

    def as_dict(self) -> dict[str, str]:
        return asdict(self)


def examine() -> list[Check]:
    return list(_examine())


def _examine() -> Iterator[Check]:
    yield _python()
    yield _docs(ROOT / "docs")
    try:
        settings = load_settings()
    except ConfigError as error:
        for problem in str(error).splitlines():
            yield Check("settings", "problem", problem)
        return
    yield Check("settings", "ok", f"valid, for {settings.server.environment}")
    folder = settings.server.data_dir
    yield _data_folder(folder)
    yield _disk(folder)
    database = _database(settings)
    yield database
    if database.state == "ok":
        yield from _audit(settings)
    yield _port(settings)
    yield _mail(settings)
    yield _storage(settings)
    yield _models(settings)


def _python() -> Check:
    version = platform.python_version()
    if sys.version_info < _OLDEST_PYTHON:
        return Check("python", "problem", f"{version} is too old: use 3.11 or newer")
    return Check("python", "ok", version)


def _docs(folder: Path) -> Check:
    """The guide answers from these."""
    if not any(folder.rglob("*.md")):
        return Check(
            "docs", "problem", f"{folder} holds no manual: take the whole release"
        )
    return Check("docs", "ok", f"the manual is in {folder}")


def _data_folder(folder: Path) -> Check:
    try:
        with tempfile.TemporaryFile(dir=_existing(folder)):
            pass
    except OSError as error:
        return Check(
            "data folder",
            "problem",
            f"DATA_DIR: cannot write into {folder} ({error.strerror}): name a folder "
            "that this user may write",
        )
    return Check("data folder", "ok", f"{folder} can be written")


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(_existing(folder)).free
    detail = f"{free / 2**30:.1f} GiB free for {folder}"
    if free < _NO_DISK:
        return Check("disk", "problem", f"{detail}: make room")
    return Check("disk", "warning" if free < _LITTLE_DISK else "ok", detail)


def _existing(folder: Path) -> Path:
    """The folder itself, or the one in which the first start would make it."""
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder


def _database(settings: Settings) -> Check:
    url = make_url(settings.database_url)
    where = url.render_as_string(hide_password=True)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return Check("database", "ok", "the first start makes it")
    try:
        current = run_with_connection(
            settings, lambda c: MigrationContext.configure(c).get_current_heads()
        )
    except (SQLAlchemyError, OSError) as error:
        return Check("database", "problem", f"DATABASE_URL: {where}: {reason(error)}")
    heads = ScriptDirectory.from_config(alembic_config()).get_heads()
    if set(current) != set(heads):
        return Check(
            "database",
            "problem",
            f"its schema is at {', '.join(current) or 'nothing'}, this version needs "
            f"{', '.join(heads)}: run `python -m app migrate`",
        )
    return Check("database", "ok", f"{where} is up to date")


def _audit(settings: Settings) -> Iterator[Check]:
    """Reads every event, and so needs its time where there are millions."""
    url = make_url(settings.database_url)
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").exists():
        return
    found = asyncio.run(_check_audit(settings))
    for fault in found.faults:
        yield Check("audit", "problem", fault)
    if found.faults:
        return
    if found.events and not found.anchored:
        yield Check(
            "audit",
            "warning",
            f"{found.events} events, all as they were written; whether later ones were "
            "cut off cannot be told: DATA_DIR has no audit.anchor from a server",
        )
    else:
        yield Check("audit", "ok", f"{found.events} events, all as they were written")


async def _check_audit(settings: Settings) -> Findings:
    database = Database(settings)
    try:
        return await check(
            database, Crypto(settings.security), Anchor(settings.server.data_dir)
        )
    finally:
        await database.close()


def _port(settings: Settings) -> Check:
    folder, port = settings.server.data_dir, settings.server.port
    if (pid := holder(folder)) is not None:
        return Check("port", "ok", f"a server is running (pid {pid or '?'})")
    try:
        open_port(settings.server).close()
    except OSError as error:
        return Check("port", "problem", why_not(settings.server, error))
    return Check("port", "ok", f"{port} is free")


def _mail(settings: Settings) -> Check:
    """Logs in at the server; sends nothing."""
    folder = settings.server.data_dir / "mail"
    if not settings.mail.smtp_host:
        written = f"written into {folder}, and sent to nobody"
        if settings.server.environment == "development":
            return Check("mail", "ok", written)
        return Check("mail", "warning", f"{written}: set SMTP_HOST")
    server = f"{settings.mail.smtp_host}:{settings.mail.port}"
    try:
        asyncio.run(SmtpMailer(settings.mail).check())
    except SMTPException as error:
        return Check("mail", "problem", f"{server}: {error}: check the SMTP settings")
    return Check("mail", "ok", f"{server} takes mail from us")


def _storage(settings: Settings) -> Check:
    """Looks at a bucket; a folder is in the data folder."""
    if settings.storage.storage == "local":
        return Check("files", "ok", f"kept in {settings.server.data_dir / 'files'}")
    bucket = f"{settings.storage.s3_endpoint}/{settings.storage.s3_bucket}"
    try:
        asyncio.run(_look_at(connect_storage(settings)))
    except StorageError as error:
        return Check(
            "files",
            "problem",
            f"{bucket}: {error.detail} Check the S3 settings.",
        )
    return Check("files", "ok", f"kept in {bucket}")


async def _look_at(storage: Storage) -> None:
    async for _ in storage.objects("originals/"):
        return


def _models(settings: Settings) -> Check:
    """Asks the providers; a server that does not answer takes its time."""
    try:
        names = asyncio.run(_model_names(settings))
    except ConfigError as error:
        return Check("models", "problem", str(error))
    providers = Counter(name.partition("/")[0] for name in names)
    found = ", ".join(f"{name} ({count})" for name, count in providers.items())
    models = settings.models
    for name, wanted in (
        ("anthropic", models.anthropic_base_url or models.anthropic_api_key),
        ("openai", models.openai_base_url or models.openai_api_key),
    ):
        if wanted and name not in providers:
            area = name.upper()
            return Check(
                "models",
                "warning",
                f"{found}; the server of {area}_BASE_URL lists none: check the address "
                f"and {area}_API_KEY, or name its models in {area}_MODELS",
            )
    if providers.keys() <= {"guide"}:
        return Check(
            "models",
            "warning",
            f"{found}, which quotes documents and nothing else: set AWS_REGION "
            "(Bedrock), ANTHROPIC_API_KEY, OPENAI_API_KEY, or OPENAI_BASE_URL (any "
            "compatible server), or start Ollama",
        )
    for setting, model, without in (
        ("EMBEDDING_MODEL", models.embedding, "by words alone"),
        ("RERANK_MODEL", models.reranking, "without reranking"),
    ):
        if model and model not in names:
            return Check(
                "models",
                "warning",
                f"{found}; {setting} is none of them: {model}. Unless that is a route, "
                f"projects are searched {without}",
            )
    return Check("models", "ok", found)


async def _model_names(settings: Settings) -> list[str]:
    logging.configure(LogSettings(format="console"))  # away from what we print
    runtime = Runtime.build(settings)
    try:
        return [model.name for model in await runtime.providers.list()]
    finally:
        await runtime.close()
