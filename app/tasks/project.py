from uuid import UUID

from app.core.queue import task
from app.services.project import projects
from app.services.runtime import Runtime


@task("project.remove", at_most=1)
async def remove(runtime: Runtime, *, project_id: str) -> None:
    await projects.purge(runtime.database, runtime.indexing, UUID(project_id))
