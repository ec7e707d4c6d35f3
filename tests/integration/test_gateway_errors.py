"""What the official clients raise where the gateway refuses a call."""

from typing import Any

import anthropic
import anyio
import openai
import pytest

from tests.integration.gateway import Gateway
from tests.integration.wire import APIS, Api

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    # One provider that speaks OpenAI's format, and one that speaks Anthropic's.
    pytest.mark.parametrize("running_gateway", ["anthropic", "openai"], indirect=True),
    pytest.mark.parametrize("api", APIS),
]


async def refused(gateway: Gateway, api: Api, error: str, **options: Any) -> Any:
    """The client's own error of that name; both have the same ones."""
    kind = getattr(anthropic if api == "messages" else openai, error)
    with pytest.raises(kind) as caught:
        await gateway.ask(api, "Say 3 words", **options)
    return caught.value


def told(error: Any) -> dict[str, Any]:
    """Anthropic's client keeps the whole body, OpenAI's what is in its `error`."""
    body: dict[str, Any] = error.body
    assert body.get("type") == "error" or "code" in body
    return dict(body.get("error", body))


@pytest.mark.parametrize(
    "key",
    [
        "wr_none",
        "wr_0123456789ab_0123456789abcdefghijklmnopqrstuvABCDEF",
        "' OR '1'='1' --",
    ],
)
async def test_a_wrong_key(gateway: Gateway, api: Api, key: str) -> None:
    """TRUST K1."""
    error = await refused(gateway, api, "AuthenticationError", client={"api_key": key})

    assert error.status_code == 401
    assert told(error)["type"] == "authentication_error"
    assert told(error).get("code") == (None if api == "messages" else "invalid_api_key")
    assert key not in error.message
    assert gateway.fake.calls == []


@pytest.mark.parametrize("model", ["gpt-4", "{}/none", "nobody/none", "guide/none"])
async def test_an_unknown_model(gateway: Gateway, api: Api, model: str) -> None:
    model = model.format(gateway.provider)

    error = await refused(gateway, api, "NotFoundError", model=model)

    assert error.status_code == 404
    if api == "messages":
        assert told(error)["type"] == "not_found_error"
    else:
        assert told(error)["code"] == "model_not_found"
    assert model in error.message


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        ({"models": ["guide/*"]}, "model_not_allowed"),
        ({"scopes": ["read", "models", "embeddings"]}, "insufficient_scope"),
    ],
)
async def test_what_the_key_may_not(
    gateway: Gateway, api: Api, limits: dict[str, Any], code: str
) -> None:
    """TRUST K2."""
    key = (await gateway.new_key(**limits))["key"]

    error = await refused(
        gateway, api, "PermissionDeniedError", client={"api_key": key}
    )

    assert error.status_code == 403
    assert told(error)["type"] == "permission_error"
    assert told(error).get("code") == (None if api == "messages" else code)
    assert gateway.fake.calls == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stream", "yes"),
        ("model", 7),
        ("messages", []),
        ("messages", "hello"),
        ("limit", 0),
        ("limit", "many"),
    ],
)
async def test_a_wrong_field_is_named(
    gateway: Gateway, api: Api, field: str, value: Any
) -> None:
    names = {
        "limit": {"chat": "max_completion_tokens", "responses": "max_output_tokens"},
        "messages": {"responses": "input"},
    }
    usual = {"limit": "max_tokens"}
    name = names.get(field, {}).get(api, usual.get(field, field))
    if (api, value) == ("responses", "hello"):
        value = 7  # a string is a fine input
    extra = {"extra_body": {name: value}}

    error = await refused(gateway, api, "BadRequestError", **extra)

    assert error.status_code == 400
    assert told(error)["type"] == "invalid_request_error"
    assert name in told(error)["message"]
    if api != "messages":
        assert told(error)["param"] == name
    assert gateway.fake.calls == []


async def test_a_field_that_cannot_be_translated_is_named(
    gateway: Gateway, api: Api
) -> None:
    """The guide takes what all formats can say, and nothing more."""
    extra = {"model": "guide/manual", "extra_body": {"magic": True}}

    error = await refused(gateway, api, "BadRequestError", **extra)

    assert "magic" in error.message
    if api != "messages":
        assert told(error)["param"] == "magic"


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the clients waited before they tried again; here they do not."""
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr(anyio, "sleep", sleep)
    return waited


async def test_a_client_waits_as_long_as_it_is_told(
    gateway: Gateway, api: Api, waits: list[float]
) -> None:
    """TRUST K2: a key's pace."""
    key = await gateway.new_key(requests_per_minute=1)
    client = {"api_key": key["key"], "max_retries": 1}
    await gateway.ask(api, "Say 3 words", client=client)

    error = await refused(gateway, api, "RateLimitError", client=client)

    assert error.status_code == 429
    assert told(error)["type"] == "rate_limit_error"
    # The first of the two refusals told it a little earlier.
    assert waits[0] in (wait := int(error.response.headers["retry-after"]), wait + 1)
    assert len(gateway.fake.calls) == 1


async def test_a_key_that_has_spent_its_day(gateway: Gateway, api: Api) -> None:
    """TRUST K2; a model that costs nothing is still there for it."""
    key = (await gateway.new_key(daily_credit_limit=0))["key"]

    client = {"api_key": key}

    error = await refused(gateway, api, "RateLimitError", client=client)
    await gateway.ask("chat", "What is a key?", client=client, model="guide/manual")

    assert told(error).get("code", "key_limit_reached") == "key_limit_reached"
    assert 0 < int(error.response.headers["retry-after"]) <= 24 * 3600
    assert gateway.fake.calls == []


async def test_a_provider_that_has_too_much_to_do(gateway: Gateway, api: Api) -> None:
    gateway.fake.plan.update({"faults": ["throttle_first"] * 9, "retry_after": "7"})

    error = await refused(gateway, api, "InternalServerError")

    assert error.status_code == 503
    assert error.response.headers["retry-after"] == "7"
    kind = "overloaded_error" if api == "messages" else "server_error"
    assert told(error)["type"] == kind


async def test_a_client_that_loses_patience_tries_again(
    gateway: Gateway, api: Api, waits: list[float]
) -> None:
    gateway.fake.plan.update({"faults": ["stall"], "at_chunk": 0})

    text = await gateway.ask(
        api, "Say 3 words", client={"timeout": 0.15, "max_retries": 9}
    )

    assert text == "w0001 w0002 w0003"
    first, *others = gateway.fake.calls
    await first.ended.wait()
    assert (first.outcome, others[-1].outcome) == ("dropped", "complete")
    assert len(waits) == len(others)
