from datetime import timedelta
from uuid import UUID

from app.core.queue import task
from app.services.runtime import Runtime


@task("account.end_turns")
async def end_turns(runtime: Runtime, *, user_id: str) -> None:
    async with runtime.database.unit_of_work() as session:
        await runtime.accounts.end_turns(session, UUID(user_id))


@task("account.purge", every=timedelta(hours=1))
async def purge(runtime: Runtime) -> None:
    await runtime.erasure.purge()
