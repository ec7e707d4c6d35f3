from datetime import timedelta

from app.core.queue import task
from app.services.runtime import Runtime


@task("auth.purge", every=timedelta(days=1))
async def purge(runtime: Runtime) -> None:
    await runtime.auth.purge(runtime.database)


@task("auth.purge_logins", every=timedelta(hours=1))
async def purge_logins(runtime: Runtime) -> None:
    """Delete what logins that failed or never ended have left."""
    await runtime.lockout.purge(runtime.database)
    await runtime.oidc.purge()
