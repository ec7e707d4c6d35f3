import pytest

from app.middleware.security_headers import SecurityHeaders
from tests.unit.middleware.asgi import Inner, ask, behind


@pytest.mark.parametrize("status", [200, 404, 500])
async def test_every_answer_makes_browsers_careful(status: int) -> None:
    answer = await ask(
        behind(SecurityHeaders(hsts=False), inner=Inner(status)), path="/api/v1/chats"
    )

    assert answer.status == status
    assert answer.header("x-content-type-options") == "nosniff"
    assert answer.header("x-frame-options") == "DENY"
    assert answer.header("referrer-policy") == "no-referrer"
    assert answer.header("cross-origin-opener-policy") == "same-origin"
    policy = answer.header("content-security-policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "frame-ancestors 'none'" in policy
    assert "script-src" not in policy


async def test_browsers_are_told_to_stay_with_https_only_where_it_is_used() -> None:
    without = await ask(behind(SecurityHeaders(hsts=False)))
    with_it = await ask(behind(SecurityHeaders(hsts=True)))

    assert without.header("strict-transport-security") is None
    assert with_it.header("strict-transport-security") == (
        "max-age=31536000; includeSubDomains"
    )


@pytest.mark.parametrize("path", ["/docs", "/docs/oauth2-redirect", "/redoc"])
async def test_the_documentation_may_load_its_scripts(path: str) -> None:
    answer = await ask(behind(SecurityHeaders(hsts=False)), path=path)

    assert answer.header("content-security-policy") is None
    assert answer.header("x-content-type-options") == "nosniff"


@pytest.mark.parametrize("path", ["/documents", "/api/v1/docs", "/redocs"])
async def test_no_other_path_may(path: str) -> None:
    answer = await ask(behind(SecurityHeaders(hsts=False)), path=path)

    assert answer.header("content-security-policy") is not None
