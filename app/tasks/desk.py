from datetime import timedelta

from app.core.queue import task
from app.services.runtime import Runtime


@task("desk.purge", every=timedelta(days=1))
async def purge(runtime: Runtime) -> None:
    await runtime.desk.purge(runtime.database)
