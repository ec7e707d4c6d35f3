from datetime import timedelta
from uuid import UUID

import structlog

from app.core.queue import task
from app.services.link import links
from app.services.runtime import Runtime

_log = structlog.get_logger()


@task("link.mail")
async def mail(runtime: Runtime, *, link_id: str) -> None:
    settings = runtime.settings
    async with runtime.database.unit_of_work() as session:
        written = await links.write(session, settings, UUID(link_id))
    if written is None:
        return
    await runtime.mailer.deliver(written.message)
    if settings.server.environment == "development" and not settings.mail.smtp_host:
        # There the one who reads the log is the one who would read the mail.
        _log.info("link mailed", link=written.link)


@task("link.purge", every=timedelta(hours=1))
async def purge(runtime: Runtime) -> None:
    await links.purge(runtime.database)
