"""P6: whose word counts on where a request came from."""

import pytest

from app.middleware.proxies import Proxies
from tests.unit.middleware.asgi import Inner, ask, behind

PEER = "198.51.100.9"
"""Who connects, unless a test says otherwise."""

HERE = ("10.0.0.5", 1)
"""A proxy of ours."""


async def client_of(
    *forwarded: str, trusted: tuple[str, ...] = (), peer: tuple[str, int] = HERE
) -> str:
    inner = Inner()
    headers = [("X-Forwarded-For", value) for value in forwarded]
    await ask(behind(Proxies(trusted), inner=inner), headers, client=peer)
    return inner.client


async def test_without_trusted_proxies_a_forged_header_changes_nothing() -> None:
    inner = Inner()

    await ask(
        behind(Proxies(()), inner=inner),
        {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https"},
    )

    assert inner.client == PEER
    assert inner.scheme == "http"


async def test_the_header_of_a_peer_that_is_no_proxy_of_ours_is_ignored() -> None:
    inner = Inner()

    await ask(
        behind(Proxies(("10.0.0.0/8",)), inner=inner),
        {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "https"},
    )

    assert inner.client == PEER
    assert inner.scheme == "http"


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["203.0.113.7"], "203.0.113.7"),
        (["6.6.6.6, 203.0.113.7"], "203.0.113.7"),
        (["127.0.0.1, 203.0.113.7, 10.9.9.9"], "203.0.113.7"),
        (["6.6.6.6", "203.0.113.7"], "203.0.113.7"),
        (["10.1.1.1, 10.2.2.2"], "10.1.1.1"),
        (["2001:db8::1"], "2001:db8::1"),
        (["203.0.113.7 "], "203.0.113.7"),
    ],
)
async def test_the_last_hop_that_is_no_proxy_counts(
    forwarded: list[str], expected: str
) -> None:
    assert await client_of(*forwarded, trusted=("10.0.0.0/8",)) == expected


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        ([], "10.0.0.5"),
        ([""], "10.0.0.5"),
        (["not an address"], "10.0.0.5"),
        (["203.0.113.7, <script>"], "10.0.0.5"),
        (["203.0.113.7, rubbish, 10.9.9.9"], "10.9.9.9"),
        (["fe80::1%" + "x" * 100], "10.0.0.5"),
    ],
)
async def test_what_is_no_address_ends_the_chain(
    forwarded: list[str], expected: str
) -> None:
    assert await client_of(*forwarded, trusted=("10.0.0.0/8",)) == expected


@pytest.mark.parametrize(
    ("forwarded", "expected"),
    [
        (["https"], "https"),
        (["http"], "http"),
        (["https, http"], "http"),
        (["https", "http"], "http"),
        (["gopher"], "http"),
        ([], "http"),
    ],
)
async def test_the_last_proxy_tells_the_scheme(
    forwarded: list[str], expected: str
) -> None:
    inner = Inner()
    headers = [("X-Forwarded-Proto", value) for value in forwarded]

    await ask(behind(Proxies(("10.0.0.5",)), inner=inner), headers, client=HERE)

    assert inner.scheme == expected


async def test_a_server_on_a_socket_file_knows_no_peer_and_trusts_none() -> None:
    inner = Inner()

    await ask(
        behind(Proxies(("10.0.0.0/8",)), inner=inner),
        {"X-Forwarded-For": "1.2.3.4"},
        client=None,
    )

    assert inner.scope is not None
    assert inner.scope["client"] is None
