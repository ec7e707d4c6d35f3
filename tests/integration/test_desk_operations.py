"""How the installation is doing, and jobs that failed for good."""

from datetime import timedelta
from typing import Any

from uuid_utils.compat import uuid7

from app.core.database import Database, utcnow
from app.models import Job, first_id
from tests.conftest import Server


async def add_job(database: Database, **fields: Any) -> str:
    job = Job(**{"name": "chat.purge", "args": {}, "state": "dead"} | fields)
    async with database.unit_of_work() as session:
        session.add(job)
    return str(job.id)


async def test_jobs_are_listed_by_state_and_name(server: Server) -> None:
    admin = await server.admin("jobs")
    database: Database = server.runtime.database
    dead = await add_job(database, error="ValueError: no", attempts=5)
    later = utcnow() + timedelta(days=1)
    waiting = await add_job(database, state="queued", name="x.y", run_at=later)

    found = (await admin.get("/admin/jobs", params={"state": "dead"})).json["items"]
    named = (await admin.get("/admin/jobs", params={"name": "x.y"})).json["items"]
    wrong = await admin.get("/admin/jobs", params={"state": "odd"})

    assert [(job["id"], job["error"]) for job in found] == [(dead, "ValueError: no")]
    assert [job["id"] for job in named] == [waiting]
    assert wrong.json["errors"][0]["path"] == "state"


async def test_a_dead_job_is_run_again(server: Server) -> None:
    admin = await server.admin("jobs")
    dead = await add_job(server.runtime.database)

    rerun = await admin.post(f"/admin/jobs/{dead}/rerun")
    again = await admin.post(f"/admin/jobs/{dead}/rerun")

    assert (rerun.status, rerun.json["state"]) == (200, "queued")
    assert (again.status, again.json["code"]) == (409, "wrong_status")


async def test_a_job_that_never_was_is_not_there(server: Server) -> None:
    admin = await server.admin("jobs")

    missing = await admin.post(f"/admin/jobs/{first_id(utcnow())}/rerun")

    assert missing.status == 404


async def test_the_figures_are_those_of_now(server: Server) -> None:
    admin = await server.admin()
    user = await server.client()
    await user.chat()

    stats = (await admin.get("/admin/stats")).json

    assert stats["users"] == {"active": 1}
    assert stats["new_users"] == {"day": 1, "week": 1, "month": 1}
    assert (stats["active_sessions"], stats["chats"]) == (1, 1)
    assert stats["messages_today"] == 0
    assert sum(stats["jobs"].values()) > 0


async def test_the_health_is_told_in_full(server: Server) -> None:
    admin = await server.admin()

    health = (await admin.get("/admin/system-health")).json

    assert health["checks"]["database"] == "ok"
    assert health["memory_bytes"] > 0


def test_the_first_key_of_a_moment_parts_what_was_made_before_and_after() -> None:
    now = utcnow()
    later = first_id(now + timedelta(seconds=1))

    assert first_id(now) <= uuid7() < later
