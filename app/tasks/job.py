from datetime import timedelta

from app.core.queue import task
from app.services import job as jobs
from app.services.runtime import Runtime


@task("job.purge", every=timedelta(days=1))
async def purge(runtime: Runtime) -> None:
    await jobs.purge(runtime.database)
