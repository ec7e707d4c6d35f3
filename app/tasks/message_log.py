from datetime import timedelta

from app.core.database import utcnow
from app.core.queue import task
from app.services.message_log.retention import purge as purge_logs
from app.services.runtime import Runtime


@task("message_log.purge", every=timedelta(hours=1))
async def purge(runtime: Runtime) -> None:
    days = runtime.settings.message_logs.days
    await purge_logs(runtime.database, utcnow() - timedelta(days=days))
