from datetime import timedelta

from app.core.queue import task
from app.services.runtime import Runtime


@task("desk.purge", every=timedelta(days=1))
async def purge(runtime: Runtime) -> None:
    async with runtime.database.unit_of_work() as session:
        await runtime.desk.purge(session)
