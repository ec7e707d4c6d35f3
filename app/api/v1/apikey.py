from contextlib import suppress
from typing import Annotated
from uuid import UUID

from fastapi import APIRouter, BackgroundTasks, Depends, status
from fastapi.responses import Response

from app.api.deps import ClientDep, CurrentUser, FreshUser, RuntimeDep, SessionDep
from app.api.idempotency import IdempotentRoute
from app.core.exceptions import AppError
from app.schemas.apikey import (
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyRead,
    ApiKeyUpdate,
    KeyRotation,
    LeakReport,
)
from app.schemas.base import Page
from app.schemas.link import Accepted
from app.services import apikey
from app.services.apikey import ApiKeys
from app.services.runtime import Runtime

router = APIRouter(prefix="/apikeys", tags=["api keys"], route_class=IdempotentRoute)
reports = APIRouter()
"""For everybody, so nobody whose calls could be told apart."""


async def get_keys(
    session: SessionDep, user: CurrentUser, runtime: RuntimeDep, client: ClientDep
) -> ApiKeys:
    return ApiKeys(session, user, runtime.principals, ip=client.ip)


KeysDep = Annotated[ApiKeys, Depends(get_keys)]


async def get_keys_to_change(_user: FreshUser, keys: KeysDep) -> ApiKeys:
    return keys


FreshKeysDep = Annotated[ApiKeys, Depends(get_keys_to_change)]
"""After a login of the last minutes alone; a leaked key is revoked at any time."""


@router.post("", status_code=status.HTTP_201_CREATED)
async def create_key(
    keys: FreshKeysDep, form: ApiKeyCreate, response: Response
) -> ApiKeyCreated:
    """Make a key; it is in this answer alone."""
    response.headers["Cache-Control"] = "no-store"
    return await keys.create(form)


@router.get("")
async def list_keys(keys: KeysDep) -> Page[ApiKeyRead]:
    return Page(items=[ApiKeyRead.model_validate(key) for key in await keys.listing()])


@router.patch("/{key_id}")
async def change_key(
    keys: FreshKeysDep, key_id: UUID, form: ApiKeyUpdate
) -> ApiKeyRead:
    return ApiKeyRead.model_validate(await keys.change(key_id, form))


@router.post("/{key_id}/rotate")
async def rotate_key(
    keys: FreshKeysDep,
    key_id: UUID,
    response: Response,
    form: KeyRotation | None = None,
) -> ApiKeyCreated:
    """Put a new key in its place: the old one ends at once, or after `grace_seconds`.

    Until then both work, as one and the same key. A second rotation ends the oldest.
    """
    response.headers["Cache-Control"] = "no-store"
    return await keys.rotate(key_id, form or KeyRotation())


@router.delete("/{key_id}/previous", status_code=status.HTTP_204_NO_CONTENT)
async def end_previous_key(keys: KeysDep, key_id: UUID) -> None:
    """End the key of before a rotation now, and not after its grace."""
    await keys.end_previous(key_id)


@router.delete("/{key_id}", status_code=status.HTTP_204_NO_CONTENT)
async def revoke_key(keys: KeysDep, key_id: UUID) -> None:
    await keys.revoke(key_id)


@reports.post("/leaked", status_code=status.HTTP_202_ACCEPTED)
async def report_leaked_keys(
    session: SessionDep,
    runtime: RuntimeDep,
    client: ClientDep,
    background: BackgroundTasks,
    form: LeakReport,
) -> Accepted:
    """Report keys that were found where they do not belong: they end at once.

    It needs no login, and the answer is the same for any. Whose keys they are is told
    by mail.
    """
    leak = apikey.report_leak(session, form, ip=client.ip)
    background.add_task(_end_leaked, runtime, leak)
    return Accepted()


async def _end_leaked(runtime: Runtime, leak: apikey.Leak) -> None:
    with suppress(AppError):  # a job tries again
        await apikey.end_leaked(runtime.database, runtime.principals, leak)


router.include_router(reports)
