import pytest
from prometheus_client import REGISTRY
from structlog.testing import CapturingLogger

from app.middleware import cors
from app.middleware.cors import Cors
from app.middleware.front import Front
from tests.unit.middleware.asgi import Answer, ask, behind

HOME = "https://app.example.com"
EVIL = "https://evil.example"


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> CapturingLogger:
    """The lines of the middleware, whatever level other tests have set."""
    captured = CapturingLogger()
    monkeypatch.setattr(cors, "_log", captured)
    return captured


def make(*origins: str, credentials: bool = False) -> Front:
    return behind(
        Cors(
            allow_origins=origins,
            allow_methods=("GET", "POST"),
            allow_headers=("Authorization",),
            allow_credentials=credentials,
        )
    )


async def preflight(
    middleware: Front, origin: str, method: str = "POST", headers: str = "authorization"
) -> Answer:
    return await ask(
        middleware,
        {
            "Origin": origin,
            "Access-Control-Request-Method": method,
            "Access-Control-Request-Headers": headers,
        },
        method="OPTIONS",
    )


def refused() -> float:
    return REGISTRY.get_sample_value("workroom_cors_refused_total") or 0


async def test_a_page_of_an_allowed_origin_may_read_the_answer() -> None:
    answer = await ask(make(HOME), {"Origin": HOME})

    assert answer.header("access-control-allow-origin") == HOME
    assert answer.header("vary") == "Origin"
    assert answer.header("access-control-allow-credentials") is None


async def test_no_other_page_may() -> None:
    answer = await ask(make(HOME, credentials=True), {"Origin": EVIL})

    assert answer.header("access-control-allow-origin") is None
    assert answer.header("vary") == "Origin"


async def test_an_allowed_preflight_says_what_may_be_sent(log: CapturingLogger) -> None:
    before = refused()

    answer = await preflight(make(HOME, credentials=True), HOME)

    assert answer.status == 200
    assert answer.header("access-control-allow-origin") == HOME
    assert answer.header("access-control-allow-credentials") == "true"
    assert answer.header("access-control-allow-methods") == "GET, POST"
    assert "Authorization" in str(answer.header("access-control-allow-headers"))
    assert refused() == before
    assert log.calls == []


@pytest.mark.parametrize(
    ("origin", "method", "headers", "reason"),
    [
        (EVIL, "POST", "authorization", "Disallowed CORS origin"),
        (HOME, "DELETE", "authorization", "Disallowed CORS method"),
        (HOME, "POST", "x-secret", "Disallowed CORS headers"),
        ("null", "POST", "authorization", "Disallowed CORS origin"),
        (f"{HOME}.evil.example", "POST", "authorization", "Disallowed CORS origin"),
    ],
)
async def test_a_refused_preflight_is_counted_and_logged_with_the_mend(
    log: CapturingLogger, origin: str, method: str, headers: str, reason: str
) -> None:
    before = refused()

    answer = await preflight(make(HOME), origin, method, headers)

    assert answer.status == 400
    assert refused() == before + 1
    (call,) = log.calls
    assert call.method_name == "warning"
    assert call.kwargs["origin"] == origin
    assert call.kwargs["method"] == method
    assert call.kwargs["reason"] == reason
    assert "CORS_ORIGINS" in call.kwargs["mend"]


async def test_a_long_origin_does_not_fill_the_log(log: CapturingLogger) -> None:
    await preflight(make(HOME), "https://" + "a" * 10_000)

    assert len(log.calls[0].kwargs["origin"]) == 200


async def test_every_origin_may_call_only_without_cookies() -> None:
    """That both are never set together is a rule of the settings."""
    answer = await ask(make("*"), {"Origin": EVIL})

    assert answer.header("access-control-allow-origin") == "*"
    assert answer.header("access-control-allow-credentials") is None


async def test_caches_hear_that_pages_of_other_sites_get_another_answer() -> None:
    answer = await ask(make(HOME))

    assert answer.header("vary") == "Origin"
    assert answer.header("access-control-allow-origin") is None
