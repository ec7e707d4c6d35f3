from datetime import timedelta
from uuid import UUID

from app.core.queue import task
from app.services.runtime import Runtime


@task("file.inspect", at_most=2)
async def inspect(runtime: Runtime, *, file_id: str) -> None:
    await runtime.files.inspection.inspect(UUID(file_id))


@task("file.remove", at_most=1)
async def remove(runtime: Runtime, *, user_id: str, file_id: str) -> None:
    await runtime.files.sweeper.remove(UUID(user_id), UUID(file_id))


@task("file.catch_up", every=timedelta(hours=1))
async def catch_up(runtime: Runtime) -> None:
    await runtime.files.catchup.run()


@task("file.sweep", every=timedelta(hours=1))
async def sweep(runtime: Runtime) -> None:
    await runtime.files.sweeper.sweep()
