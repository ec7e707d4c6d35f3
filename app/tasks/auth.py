from datetime import timedelta

from app.core.queue import task
from app.services.runtime import Runtime


@task("auth.purge", every=timedelta(days=1))
async def purge(runtime: Runtime) -> None:
    async with runtime.database.unit_of_work() as session:
        await runtime.auth.purge(session)


@task("auth.purge_logins", every=timedelta(hours=1))
async def purge_logins(runtime: Runtime) -> None:
    """Delete what logins that failed or never ended have left."""
    async with runtime.database.unit_of_work() as session:
        await runtime.lockout.purge(session)
        await runtime.oidc.purge(session)
