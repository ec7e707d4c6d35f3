import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import pytest
from prometheus_client import REGISTRY
from starlette.types import Receive, Scope, Send
from structlog.testing import CapturingLogger

from app.core.config import LogSettings
from app.core.logging import about
from app.core.metrics import pass_on
from app.middleware import request_context
from app.middleware.front import Front
from app.middleware.request_context import RequestContext
from tests.unit.middleware.asgi import Inner, ask, behind, make_scope, nothing


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """The access log, whatever level other tests have set."""
    captured = CapturingLogger()
    proxy = SimpleNamespace(bind=lambda: captured)
    monkeypatch.setattr(request_context, "_log", proxy)
    return captured


def wrap(inner: Any, **settings: Any) -> Front:
    return behind(RequestContext(LogSettings.model_validate(settings)), inner=inner)


def counted(metric: str, **labels: str) -> float:
    pass_on()
    return REGISTRY.get_sample_value(metric, labels) or 0


@dataclass
class Route:
    path: str
    path_format: str


def routed(path: str, **params: str) -> Any:
    """An application that has found a route, as FastAPI tells it."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["route"] = Route(path, path.replace(":path", ""))
        scope["path_params"] = params
        await Inner()(scope, receive, send)

    return app


@pytest.mark.parametrize("given", ["a", "abc-DEF_1.2", "0" * 64, str(UUID(int=7))])
async def test_the_callers_harmless_id_is_taken_over(
    log: CapturingLogger, given: str
) -> None:
    answer = await ask(wrap(Inner()), {"X-Request-ID": given})

    assert answer.header("x-request-id") == given


@pytest.mark.parametrize(
    "given",
    ["", "0" * 65, "a b", "a\tb", "<script>", 'a"b', "a\u00e9", "a;b", "a/b", "{}"],
)
async def test_any_other_id_is_replaced(log: CapturingLogger, given: str) -> None:
    answer = await ask(wrap(Inner()), {"X-Request-ID": given})

    assert UUID(answer.header("x-request-id")).version == 7


async def test_anthropic_s_clients_find_it_where_they_look(
    log: CapturingLogger,
) -> None:
    answers = [
        await ask(wrap(Inner()), {"X-Request-ID": "mine"}, path=path)
        for path in ("/v1/messages", "/v1/chat/completions")
    ]

    assert [answer.header("request-id") for answer in answers] == ["mine", None]


async def test_each_request_without_an_id_gets_its_own(log: CapturingLogger) -> None:
    app = wrap(Inner())

    ids = {(await ask(app)).header("x-request-id") for _ in range(20)}

    assert len(ids) == 20


async def test_the_id_is_on_every_line_that_the_request_logs(
    log: CapturingLogger,
) -> None:
    seen: list[Mapping[str, Any]] = []

    async def inner(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(about.get())
        await Inner()(scope, receive, send)

    about.set({"left": "by an earlier request"})
    await ask(wrap(inner), {"X-Request-ID": "mine"})

    assert seen == [{"request_id": "mine"}]


async def test_the_access_line_has_these_fields_and_no_others(
    log: CapturingLogger,
) -> None:
    await ask(
        wrap(Inner(status=418)),
        {"Authorization": "Bearer secret", "Cookie": "a=secret"},
        method="POST",
        path="/api/v1/chats",
        query_string=b"token=secret",
    )

    (call,) = log.calls
    assert call.method_name == "info"
    assert call.args == ("request",)
    assert call.kwargs.pop("ms") >= 0
    assert call.kwargs == {
        "method": "POST",
        "path": "/api/v1/chats",
        "status": 418,
        "client": "198.51.100.9",
    }


@pytest.mark.parametrize("path", ["/health", "/health/ready", "/metrics"])
async def test_what_watches_the_server_leaves_no_line(
    log: CapturingLogger, path: str
) -> None:
    await ask(wrap(Inner()), path=path)

    assert log.calls == []


async def test_logging_off_leaves_no_line_but_counts(log: CapturingLogger) -> None:
    labels = {"method": "GET", "route": "none", "status": "299"}
    before = counted("workroom_http_requests_total", **labels)

    answer = await ask(wrap(Inner(status=299), ENABLE_LOGGING=False))

    assert log.calls == []
    assert answer.header("x-request-id") is not None
    assert counted("workroom_http_requests_total", **labels) == before + 1


async def test_timing_is_a_header_that_browsers_show(log: CapturingLogger) -> None:
    on = await ask(wrap(Inner()))
    off = await ask(wrap(Inner(), ENABLE_TIMING=False))

    assert re.fullmatch(r"app;dur=\d+\.\d", on.header("server-timing") or "")
    assert off.header("server-timing") is None


@pytest.mark.parametrize(
    ("pattern", "params", "path", "label"),
    [
        ("/chats", {}, "/api/v1/chats", "/api/v1/chats"),
        ("/chats/{id}", {"id": "a"}, "/api/v1/chats/a", "/api/v1/chats/{id}"),
        ("/health", {}, "/health", "/health"),
        ("/m/{n:path}", {"n": "b/c"}, "/api/v1/m/b/c", "/api/v1/m/{n:path}"),
        ("/{a}/{b}", {"a": "x", "b": "x"}, "/x/x", "/{a}/{b}"),
    ],
)
async def test_requests_are_counted_by_route_not_by_id(
    log: CapturingLogger, pattern: str, params: dict[str, str], path: str, label: str
) -> None:
    labels = {"method": "GET", "route": label}
    name = "workroom_http_request_seconds_count"
    before = counted(name, **labels)

    await ask(wrap(routed(pattern, **params)), path=path)

    assert counted(name, **labels) == before + 1


async def test_made_up_methods_share_one_series(log: CapturingLogger) -> None:
    labels = {"method": "other", "route": "none", "status": "200"}
    before = counted("workroom_http_requests_total", **labels)

    await ask(wrap(Inner()), method="BREW")
    await ask(wrap(Inner()), method="X" * 1000)

    assert counted("workroom_http_requests_total", **labels) == before + 2
    assert [call.kwargs["method"] for call in log.calls] == ["other", "other"]


async def test_a_request_that_fails_is_counted_and_logged_as_500(
    log: CapturingLogger,
) -> None:
    async def failing(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise RuntimeError("the cause")

    labels = {"method": "GET", "route": "none", "status": "500"}
    before = counted("workroom_http_requests_total", **labels)

    await ask(wrap(failing))

    assert counted("workroom_http_requests_total", **labels) == before + 1
    assert log.calls[0].kwargs["status"] == 500


async def test_a_lifespan_is_no_request(log: CapturingLogger) -> None:
    seen: list[str] = []

    async def inner(scope: Scope, _receive: Receive, _send: Send) -> None:
        seen.append(scope["type"])

    await wrap(inner)(make_scope(type="lifespan"), nothing, nothing)

    assert seen == ["lifespan"]
    assert log.calls == []
