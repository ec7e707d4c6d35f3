from datetime import timedelta
from uuid import UUID

from app.core.queue import task
from app.services.runtime import Runtime


@task("knowledge.index", at_most=2)  # a short text passes a long one
async def index(runtime: Runtime, *, document_id: str) -> None:
    await runtime.indexing.index(UUID(document_id))


@task("knowledge.remove", at_most=1)
async def remove(runtime: Runtime, *, document_id: str) -> None:
    await runtime.indexing.remove(UUID(document_id))


@task("knowledge.embed", at_most=2)  # a worker waits for the model there
async def embed(runtime: Runtime, *, document_id: str) -> None:
    await runtime.embedding.embed(UUID(document_id))


@task("knowledge.embed_missing", every=timedelta(minutes=10))
async def embed_missing(runtime: Runtime) -> None:
    await runtime.embedding.embed_missing()
