"""`Idempotency-Key`: a router with this class of routes honours it, and needs no more.

What it takes of the services is `app.services.idempotency.take`, which the session of
a request calls as it opens, and a turn as it is stored. Without the header a request
goes straight through.
"""

from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any
from uuid import UUID

import orjson
from fastapi import Request, status
from fastapi.dependencies.models import Dependant
from fastapi.responses import Response
from fastapi.routing import APIRoute

from app.api import streaming
from app.api.deps import Check, get_runtime, principal_of
from app.core.exceptions import AppError
from app.models import IdempotencyKey
from app.schemas.message import Continuation
from app.services import idempotency
from app.services.authorization import Principal
from app.services.desk.principal import DeskUser
from app.services.idempotency import Claim, SecretShownError
from app.services.keyring import Grant

Handler = Callable[[Request], Coroutine[Any, Any, Response]]
Caller = Principal | DeskUser | Grant
WhoCalls = Callable[[Request], Awaitable[Caller]]

_METHODS = {"POST", "PATCH"}
_PARAMETER = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "For 24 hours the same key and request get the first answer again.",
}


class IdempotentRoute(APIRoute):
    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if _METHODS & set(options.get("methods") or ()):
            extra = options.get("openapi_extra") or {}
            if _PARAMETER not in extra.get("parameters", []):
                parameters = [*extra.get("parameters", []), _PARAMETER]
                options["openapi_extra"] = {**extra, "parameters": parameters}
        super().__init__(path, endpoint, **options)

    def get_route_handler(self) -> Handler:
        handle = super().get_route_handler()
        who_calls = _check(self.dependant) or principal_of

        async def handle_once(request: Request) -> Response:
            key = request.headers.get("idempotency-key")
            if key is None or request.method not in _METHODS:
                return await handle(request)
            caller = await who_calls(request)
            claim = Claim.of(_id(caller), key, await _parts(request))
            return await _answer(request, caller, claim, handle)

        return handle_once


def _check(dependant: Dependant) -> WhoCalls | None:
    """What the endpoint asks of those who call it, where they are no users."""
    for one in dependant.dependencies:
        call: object = one.call
        if isinstance(call, Check):
            return call.of
        if (found := _check(one)) is not None:
            return found
    return None


def _id(caller: Caller) -> UUID:
    return caller.user_id if isinstance(caller, Principal) else caller.id


async def _parts(request: Request) -> tuple[bytes, ...]:
    """What makes two requests the same."""
    target = (request.method, request.scope["path"], request.url.query)
    return (*(part.encode() for part in target), await request.body())


async def _answer(
    request: Request, caller: Caller, claim: Claim, handle: Handler
) -> Response:
    database = (await get_runtime(request)).database
    stored = await idempotency.find(database, claim)
    if stored is None:
        before = idempotency.current.set(claim)
        try:
            response = await handle(request)
        except AppError as error:
            own_transaction = claim.session is None
            if claim.taken and own_transaction and error.status >= 500:  # noqa: PLR2004 - a failure of ours
                await idempotency.release(database, claim)
            # A twin may have been faster, and this be no more than its shadow.
            stored = None if claim.taken else await idempotency.find(database, claim)
            if stored is None:
                raise
        else:
            await _record(claim, response)
            return response
        finally:
            idempotency.current.reset(before)
    return await _replayed(request, caller, stored)


async def _record(claim: Claim, response: Response) -> None:
    if claim.session is None:
        return  # nothing was done, or a turn: its own transaction holds the key
    body = bytes(response.body)
    resource_id: UUID | None = None
    with suppress(ValueError, KeyError, TypeError):  # not every answer has an id
        resource_id = UUID(orjson.loads(body)["id"])
    secret = response.headers.get("cache-control") == "no-store"
    await idempotency.record(
        claim,
        status=response.status_code,
        media_type=response.media_type or response.headers.get("content-type"),
        body=None if secret else body,
        resource_id=resource_id,
    )


async def _replayed(
    request: Request, caller: Caller, stored: IdempotencyKey
) -> Response:
    if stored.status is None:
        assert stored.resource_id is not None
        assert isinstance(caller, Principal)  # nobody else is answered by a reply
        form = Continuation.model_validate(
            orjson.loads(await request.body() or "{}") or {}
        )
        response = await streaming.replay(
            caller, await get_runtime(request), stored.resource_id, stream=form.stream
        )
    elif stored.body is None:
        raise SecretShownError(stored.resource_id)
    else:
        has_body = stored.status != status.HTTP_204_NO_CONTENT
        response = Response(
            stored.body if has_body else None,
            status_code=stored.status,
            media_type=stored.media_type,
        )
    response.headers["Idempotency-Replayed"] = "true"
    return response
