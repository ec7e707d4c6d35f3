from datetime import timedelta
from uuid import UUID

from app.core.queue import task
from app.services.chat import chats, search, summaries, titles
from app.services.runtime import Runtime


@task("chat.title")
async def title(runtime: Runtime, *, chat_id: str) -> None:
    await titles.write(runtime.database, runtime.router, runtime.books, UUID(chat_id))


@task("chat.summary")
async def summary(runtime: Runtime, *, message_id: str, room: int) -> None:
    await summaries.write(
        runtime.database, runtime.router, runtime.books, UUID(message_id), room=room
    )


@task("chat.index")
async def index(runtime: Runtime) -> None:
    await search.reindex(runtime.database)


@task("chat.purge", every=timedelta(hours=1))
async def purge(runtime: Runtime) -> None:
    await chats.purge(runtime.database)
