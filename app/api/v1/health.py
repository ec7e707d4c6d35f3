import hmac
from ipaddress import ip_address
from typing import Any

from fastapi import APIRouter, Request, status
from fastapi.responses import JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.deps import RuntimeDep
from app.core.exceptions import NotFoundError
from app.core.metrics import exposition
from app.services import health
from app.services.runtime import Runtime

router = APIRouter(tags=["health"])

# Behind a proxy on this machine, everybody comes from loopback.
_PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip")


@router.get("/health/live")
async def live() -> dict[str, str]:
    """The process answers; whether it can work, `/health/ready` tells."""
    return {"status": "ok"}


@router.get("/health/ready", responses={503: {"description": "Not ready."}})
async def ready(runtime: RuntimeDep) -> JSONResponse:
    return _answer(await health.ready(runtime), {})


@router.get("/health", responses={503: {"description": "Not ready."}})
async def overview(request: Request, runtime: RuntimeDep) -> JSONResponse:
    """With details for whoever may read the metrics."""
    if not _may_read_details(request, runtime):
        return await ready(runtime)
    details = await health.details(runtime)
    return _answer(details["checks"], details)


@router.get("/metrics", response_class=Response)
async def metrics(request: Request, runtime: RuntimeDep) -> Response:
    """Prometheus metrics, for METRICS_TOKEN or, without one, from loopback alone."""
    if not _may_read_details(request, runtime):
        raise NotFoundError("There is nothing at this address.")
    shared = runtime.settings.log.shared_metrics
    return Response(exposition(shared), media_type=CONTENT_TYPE_LATEST)


def _answer(checks: dict[str, str], details: dict[str, Any]) -> JSONResponse:
    good = all(word == "ok" for word in checks.values())
    return JSONResponse(
        {"status": "ok" if good else "unavailable", **(details or {"checks": checks})},
        status_code=status.HTTP_200_OK if good else status.HTTP_503_SERVICE_UNAVAILABLE,
    )


def _may_read_details(request: Request, runtime: Runtime) -> bool:
    token = runtime.settings.server.metrics_token
    if token is not None:
        given = request.headers.get("authorization", "")
        expected = f"Bearer {token.get_secret_value()}"
        return hmac.compare_digest(given.encode(), expected.encode())
    if request.client is None or any(name in request.headers for name in _PROXIED):
        return False
    try:
        return ip_address(request.client.host).is_loopback
    except ValueError:
        return False
