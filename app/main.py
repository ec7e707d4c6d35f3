"""The application: what it is made of, and what its life looks like."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, cast

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from app import tasks
from app.api import errors
from app.api.openapi import describe, operation_id
from app.api.router import root
from app.api.shortcuts import QuickRoute, ShortCuts, Ways
from app.core import logging
from app.core.config import Settings, get_settings
from app.middleware import rate_limit
from app.middleware.address_rules import AddressRules
from app.middleware.admission import Admission
from app.middleware.body_limit import BodyLimit
from app.middleware.cors import Cors
from app.middleware.front import Front, Gate
from app.middleware.hosts import Hosts
from app.middleware.https import HttpsOnly
from app.middleware.proxies import Proxies
from app.middleware.request_context import RequestContext
from app.middleware.security_headers import SecurityHeaders
from app.services.runtime import Runtime
from app.tasks.worker import Worker

VERSION = "0.1.0"

_FORM_BYTES = 2**20
"""What an upload may have around its file."""

_ = tasks  # importing it registers them


class _Application(FastAPI):
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Without the telemetry, which is off: it is asked for each request."""
        if scope["type"] == "http" and self.middleware_stack is not None:
            scope["app"] = self
            await self.middleware_stack(scope, receive, send)
        else:
            await super().__call__(scope, receive, send)

    def build_middleware_stack(self) -> ASGIApp:
        """Ours alone: what FastAPI puts around it costs, and does what ours does."""
        stack: Any = super().build_middleware_stack()
        while not isinstance(stack, Front):
            stack = stack.app
        return cast("ASGIApp", stack)


def create_app(settings: Settings | None = None) -> FastAPI:
    settings = settings or get_settings()
    logging.configure(settings.log, debug=settings.server.debug)
    server = settings.server
    app = _Application(
        title=server.app_name,
        version=VERSION,
        description="A self-hosted AI workspace: accounts, and chats whose replies "
        "cannot be lost.",
        docs_url="/docs" if server.shows_docs else None,
        redoc_url="/redoc" if server.shows_docs else None,
        openapi_url="/openapi.json" if server.shows_docs else None,
        lifespan=_lifespan,
        generate_unique_id_function=operation_id,
        # It would lead to wherever the host header says; another path is not found.
        redirect_slashes=False,
        # A span for every request costs CPU and says what the access log does.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.runtime = runtime = Runtime.build(settings)
    app.state.shutdown = runtime.shutdown
    app.include_router(root)
    app.router.routes.insert(0, QuickRoute(_ways()))
    app.add_middleware(ShortCuts, ways=_ways())
    errors.install(app)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's own way to replace it
    app.add_middleware(Front, gates=_gates(settings, app.state.runtime))
    return app


@cache
def _ways() -> Ways:
    """The same for every application: finding them is most of making one."""
    return Ways(root.routes)


def _gates(settings: Settings, runtime: Runtime) -> list[Gate]:
    """In the order in which a request meets them."""
    server, cors, limits = settings.server, settings.cors, settings.limits
    return [
        Proxies(server.trusted_proxies),
        RequestContext(settings.log),
        SecurityHeaders(hsts=server.redirects_to_https),
        AddressRules(runtime.ip_rules),
        Hosts(server.allowed_hosts),
        *([HttpsOnly()] if server.redirects_to_https else []),
        Cors(
            allow_origins=cors.origins,
            allow_methods=cors.methods,
            allow_headers=cors.headers,
            allow_credentials=cors.credentials,
            expose_headers=(
                "X-Request-ID",
                "Server-Timing",
                "Retry-After",
                "Content-Disposition",
                "Idempotency-Replayed",
                "X-Workroom-Cache",
                *rate_limit.HEADERS,
            ),
        ),
        Admission(most=limits.max_requests, lag=runtime.lag),
        rate_limit.RateLimit(
            rates=lambda: runtime.settings.limits.rates,
            limiter=runtime.limiter,
            tokens=runtime.tokens,
            known_key=runtime.principals.known_key,
        ),
        BodyLimit(
            limit=limits.max_body_bytes,
            gateway_limit=limits.max_gateway_body_bytes,
            file_limit=settings.storage.max_file_bytes + _FORM_BYTES,
            seconds=limits.body_seconds,
        ),
    ]


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    runtime: Runtime = app.state.runtime
    seconds = runtime.settings.server.shutdown_seconds
    worker = Worker(runtime)
    draining: list[asyncio.Task[None]] = []
    runtime.shutdown.on_begin(
        lambda: draining.append(asyncio.create_task(runtime.turns.drain(seconds)))
    )
    await runtime.open()
    await worker.open(alone=runtime.alone)
    try:
        yield
    finally:
        # Where a signal began the drain, the streams have ended by now.
        await (draining[0] if draining else runtime.turns.drain(seconds))
        await worker.close(seconds)
        await runtime.close()
