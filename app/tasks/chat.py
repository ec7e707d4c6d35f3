from uuid import UUID

from app.core.queue import task
from app.services.chat import titles
from app.services.runtime import Runtime


@task("chat.title")
async def title(runtime: Runtime, *, chat_id: str) -> None:
    await titles.write(runtime.database, runtime.providers, UUID(chat_id))
