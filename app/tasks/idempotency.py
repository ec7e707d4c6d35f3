from datetime import timedelta

from app.core.queue import task
from app.services import idempotency
from app.services.runtime import Runtime


@task("idempotency.purge", every=timedelta(hours=1))
async def purge(runtime: Runtime) -> None:
    await idempotency.purge(runtime.database)
