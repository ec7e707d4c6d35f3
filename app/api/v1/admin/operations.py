"""How the installation is doing, for those who run it."""

from typing import Annotated, Any
from uuid import UUID

from fastapi import APIRouter, Depends, Query

from app.api.deps import (
    AdminWith,
    AnyAdmin,
    ClientDep,
    PageDep,
    RuntimeDep,
    SessionDep,
)
from app.schemas.base import Page
from app.schemas.desk import JobRead, JobState, Stats
from app.services import health
from app.services import job as jobs
from app.services.desk import operations
from app.services.desk.principal import DeskUser

router = APIRouter()

JobsAdmin = Annotated[DeskUser, Depends(AdminWith("jobs"))]


@router.get("/jobs")
async def admin_list_jobs(
    session: SessionDep,
    _admin: JobsAdmin,
    page: PageDep,
    state: Annotated[JobState | None, Query()] = None,
    name: Annotated[str | None, Query(max_length=100)] = None,
) -> Page[JobRead]:
    """The newest first."""
    found, following = await jobs.listing(session, page, state=state, name=name)
    items = [JobRead.model_validate(job) for job in found]
    return Page(items=items, next_cursor=following)


@router.post("/jobs/{job_id}/rerun")
async def admin_rerun_job(
    session: SessionDep, admin: JobsAdmin, client: ClientDep, job_id: UUID
) -> JobRead:
    """Give a dead job all its tries again."""
    job = await operations.rerun(session, admin.actor(client.ip), job_id)
    return JobRead.model_validate(job)


@router.get("/stats")
async def admin_stats(session: SessionDep, _admin: AnyAdmin) -> Stats:
    return await operations.count(session)


@router.get("/system-health")
async def admin_system_health(runtime: RuntimeDep, _admin: AnyAdmin) -> dict[str, Any]:
    """The database, the disk, jobs, memory and models, as this process sees them."""
    return await health.details(runtime)
