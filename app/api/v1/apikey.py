from uuid import UUID

from fastapi import APIRouter, status
from fastapi.responses import Response

from app.api.deps import CurrentUser, RuntimeDep, SessionDep
from app.schemas.apikey import ApiKeyCreate, ApiKeyUpdate, KeyCreated, KeyRead
from app.schemas.base import Page
from app.services import apikey as keys

router = APIRouter(prefix="/apikeys", tags=["api keys"])


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_key(
    session: SessionDep, user: CurrentUser, form: ApiKeyCreate, response: Response
) -> KeyCreated:
    """Make a key; it is in this answer alone."""
    response.headers["Cache-Control"] = "no-store"
    return await keys.create(session, user, form)


@router.get("")
async def list_keys(session: SessionDep, user: CurrentUser) -> Page[KeyRead]:
    found = await keys.listing(session, user)
    return Page(items=[KeyRead.model_validate(key) for key in found])


@router.patch("/{key_id}")
async def change_key(
    session: SessionDep,
    user: CurrentUser,
    runtime: RuntimeDep,
    key_id: UUID,
    form: ApiKeyUpdate,
) -> KeyRead:
    changed = await keys.change(session, user, runtime.principals, key_id, form)
    return KeyRead.model_validate(changed)


@router.delete("/{key_id}", status_code=status.HTTP_204_NO_CONTENT)
async def revoke_key(
    session: SessionDep, user: CurrentUser, runtime: RuntimeDep, key_id: UUID
) -> None:
    """End it at once; this asks for no fresh login, for a leak cannot wait."""
    await keys.revoke(session, user, runtime.principals, key_id)


@router.post("/{key_id}/rotate")
async def rotate_key(
    session: SessionDep,
    user: CurrentUser,
    runtime: RuntimeDep,
    key_id: UUID,
    response: Response,
) -> KeyCreated:
    """Put a new key in its place: the old one ends at once."""
    response.headers["Cache-Control"] = "no-store"
    return await keys.rotate(session, user, runtime.principals, key_id)
