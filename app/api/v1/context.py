from uuid import UUID

from fastapi import APIRouter

from app.api.deps import AskedDep, CurrentUser, DatabaseDep, TurnsDep
from app.schemas.context import ContextRead
from app.services.chat import preview

router = APIRouter(tags=["context"])


@router.get("/projects/{project_id}/context")
async def preview_project(
    database: DatabaseDep,
    turns: TurnsDep,
    user: CurrentUser,
    project_id: UUID,
    asked: AskedDep,
) -> ContextRead:
    """What the first turn of a new chat in the project would send to the model."""
    return await preview.of_project(database, turns, user, project_id, asked=asked)


@router.get("/chats/{chat_id}/context")
async def preview_chat(
    database: DatabaseDep,
    turns: TurnsDep,
    user: CurrentUser,
    chat_id: UUID,
    asked: AskedDep,
) -> ContextRead:
    """What the next turn of a chat would send to the model."""
    return await preview.of_chat(database, turns, user, chat_id, asked=asked)
