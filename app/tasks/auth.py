from datetime import timedelta

from app.core.queue import task
from app.services.runtime import Runtime


@task("auth.purge", every=timedelta(days=1))
async def purge(runtime: Runtime) -> None:
    async with runtime.database.unit_of_work() as session:
        await runtime.auth.purge(session)
        await runtime.lockout.purge(session)
