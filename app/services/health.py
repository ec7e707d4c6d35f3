"""Whether this process can do its work, and what it has to do it with."""

import shutil
from typing import Any

import psutil
from sqlalchemy import func, select

from app.core.exceptions import AppError
from app.models import Job
from app.services.runtime import Runtime

_LEAST_FREE = 100 * 2**20  # bytes of disk under which nothing more should be stored


async def ready(runtime: Runtime) -> dict[str, str]:
    """Each thing that a request needs: "ok", or what is wrong with it."""
    checks = {
        "database": await _database(runtime),
        "disk": _disk(runtime),
        "shutdown": "shutting down" if runtime.shutdown.begun else "ok",
    }
    if runtime.settings.redis.url is not None:
        heard = runtime.bus.reliable
        checks["redis"] = "ok" if heard else "REDIS_URL does not answer"
    return checks


async def details(runtime: Runtime) -> dict[str, Any]:
    """More of the same, for those who run the installation."""
    checks = await ready(runtime)
    return {
        "checks": checks,
        "running_turns": runtime.turns.running,
        "jobs": await _jobs(runtime) if checks["database"] == "ok" else {},
        "memory_bytes": psutil.Process().memory_info().rss,
        "disk_free_bytes": shutil.disk_usage(runtime.settings.server.data_dir).free,
        "models": [model.name for model in await runtime.providers.list()],
    }


async def _database(runtime: Runtime) -> str:
    try:
        await runtime.database.ping()
    except AppError as error:
        return error.detail
    return "ok"


def _disk(runtime: Runtime) -> str:
    free = shutil.disk_usage(runtime.settings.server.data_dir).free
    return "ok" if free > _LEAST_FREE else f"only {free // 2**20} MiB free"


async def _jobs(runtime: Runtime) -> dict[str, int]:
    async with runtime.database.unit_of_work(read_only=True) as session:
        counts = await session.execute(
            select(Job.state, func.count()).group_by(Job.state)
        )
        return dict(counts.all())
