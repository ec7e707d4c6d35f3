"""What external applications ask and tell, each with a service key of its own."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Form, Request
from fastapi.responses import Response

from app.api.deps import (
    Bearer,
    KeyHeader,
    RuntimeDep,
    SessionDep,
    get_runtime,
    read_bearer,
    read_key_header,
)
from app.api.idempotency import IdempotentRoute
from app.core.exceptions import ForbiddenError, UnauthenticatedError
from app.schemas.introspection import (
    Introspection,
    IntrospectionForm,
    UsageBooked,
    UsageEntries,
    UsageReport,
)
from app.schemas.servicekey import ServiceScope
from app.services import introspection
from app.services.keyring import Grant

router = APIRouter(tags=["external applications"])
reports = APIRouter(route_class=IdempotentRoute)


class ServiceWith:
    """Use as `service: Annotated[Grant, Depends(ServiceWith("report"))]`."""

    def __init__(self, scope: ServiceScope) -> None:
        self._scope = scope

    async def __call__(
        self, request: Request, runtime: RuntimeDep, bearer: Bearer, key: KeyHeader
    ) -> Grant:
        sent = bearer or key
        if sent is None:
            raise UnauthenticatedError("Send a service key: Authorization: Bearer wrs_")
        ip = request.client.host if request.client else None
        service = await runtime.principals.service_of(sent, ip=ip)
        if self._scope not in service.scopes:
            raise ForbiddenError(
                f"This service key lacks the scope {self._scope}.",
                code="insufficient_scope",
            )
        return service

    async def of(self, request: Request) -> Grant:
        sent = await read_bearer(request), await read_key_header(request)
        return await self(request, await get_runtime(request), *sent)


@router.post("/auth/introspect", response_model_exclude_none=True)
async def introspect(
    runtime: RuntimeDep,
    _service: Annotated[Grant, Depends(ServiceWith("introspect"))],
    form: Annotated[IntrospectionForm, Form()],
    response: Response,
) -> Introspection:
    """Tell whose a token is and what it may do (RFC 7662)."""
    response.headers["Cache-Control"] = "no-store"
    return await runtime.introspector.introspect(form)


@reports.post("/usage/report")
async def report_usage(
    session: SessionDep,
    service: Annotated[Grant, Depends(ServiceWith("report"))],
    form: Annotated[UsageReport, Body()],
) -> UsageBooked:
    """Book what users used up in an external application, one report or many."""
    reports = form.reports if isinstance(form, UsageEntries) else [form]
    return await introspection.report(session, service, reports)


router.include_router(reports)
