from app.core.queue import task
from app.services import apikey
from app.services.runtime import Runtime


@task("apikey.end_leaked")
async def end_leaked(
    runtime: Runtime, *, hashes: list[str], url: str | None, ip: str | None
) -> None:
    leak = apikey.Leak(hashes, url, ip)
    await apikey.end_leaked(runtime.database, runtime.principals, leak)
