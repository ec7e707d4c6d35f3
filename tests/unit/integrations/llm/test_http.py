"""The pool of connections, against servers that misbehave."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
from structlog.testing import capture_logs

from app.core.config import ModelSettings
from app.integrations.llm import http as http_module
from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
)
from app.integrations.llm.http import (
    Http,
    body_of,
    by_status,
    drain,
    refused,
    retry_after,
)
from tests.unit.integrations.llm.conftest import raw_server

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n"


@asynccontextmanager
async def answering(
    answer: bytes, *, stays: bool = False, seen: list[bytes] | None = None
) -> AsyncIterator[str]:
    """A server that reads a request's head, writes this, and leaves, or does not."""

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        while head := await _head(reader):
            if seen is not None:
                seen.append(head)
            writer.write(answer)
            if not stays:
                return

    async with raw_server(handle) as url:
        yield url


async def _head(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return b""


async def get(http: Http, url: str) -> bytes:
    async with http.request("GET", url, setting="SOME_URL", headers={}) as response:
        return await body_of(response)


async def test_one_connection_serves_several_calls(http: Http) -> None:
    connections = []

    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        connections.append(writer)
        while await _head(reader):
            writer.write(OK + b"\r\n0123456789")

    async with raw_server(handle) as url:
        for _ in range(3):
            assert await get(http, url) == b"0123456789"
        await http.close()

    assert len(connections) == 1


async def test_closing_and_opening_again(http: Http) -> None:
    async with answering(OK + b"\r\n0123456789") as url:
        await get(http, url)
        await http.close()
        await http.close()
        assert await get(http, url) == b"0123456789"


async def test_cookies_are_not_kept_and_answers_not_asked_for_in_lumps(
    http: Http,
) -> None:
    seen: list[bytes] = []
    answer = OK + b"Set-Cookie: a=b\r\n\r\n0123456789"
    async with answering(answer, stays=True, seen=seen) as url:
        await get(http, url)
        await get(http, url)

    assert b"Cookie" not in seen[1]
    assert b"Accept-Encoding: identity" in seen[1]


async def test_redirects_are_not_followed(http: Http) -> None:
    answer = b"HTTP/1.1 307 Go\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n"
    async with (
        answering(answer) as url,
        http.request("GET", url, setting="X", headers={}) as response,
    ):
        assert response.status == 307


async def test_the_url_goes_out_as_it_is_written(http: Http) -> None:
    seen: list[bytes] = []
    async with answering(OK + b"\r\n0123456789", seen=seen) as url:
        await get(http, f"{url}/model/a%3Ab%2Fc~d/x")

    assert seen[0].startswith(b"GET /model/a%3Ab%2Fc~d/x HTTP/1.1\r\n")


async def test_a_closed_port_names_the_host_and_the_setting(http: Http) -> None:
    async with answering(b"") as url:
        pass

    with pytest.raises(ProviderUnavailableError, match=r"127\.0\.0\.1.*SOME_URL"):
        await get(http, url)


@pytest.mark.parametrize("url", ["http://[broken", "nonsense", "ftp://127.0.0.1/"])
async def test_an_address_that_is_none_names_the_setting(http: Http, url: str) -> None:
    with pytest.raises(ProviderUnavailableError, match="SOME_URL"):
        await get(http, url)


async def test_connecting_may_not_take_long() -> None:
    pool = Http(ModelSettings(connect_seconds=0.1, stall_seconds=5))

    async def silent(
        reader: asyncio.StreamReader, _writer: asyncio.StreamWriter
    ) -> None:
        await reader.read()  # takes the TLS greeting, and says nothing to it

    async with raw_server(silent) as url:
        with pytest.raises(ProviderUnavailableError, match="cannot be reached"):
            await get(pool, url.replace("http:", "https:"))
    await pool.close()


@pytest.mark.parametrize(
    ("answer", "stays", "error"),
    [
        (b"", False, ProviderUnavailableError),
        (b"", True, ProviderTimeoutError),
        (b"no HTTP at all\r\n\r\n", False, ProviderUnavailableError),
        (OK + b"\r\n01234", False, ProviderStreamBrokenError),
        (OK + b"\r\n01234", True, ProviderTimeoutError),
    ],
)
async def test_what_goes_wrong_before_and_in_an_answer(
    http: Http, answer: bytes, *, stays: bool, error: type[ProviderError]
) -> None:
    async with answering(answer, stays=stays) as url:
        with pytest.raises(error):
            await get(http, url)


async def test_of_a_long_body_only_the_beginning_is_read(http: Http) -> None:
    answer = b"HTTP/1.1 500 Oh\r\n\r\n" + bytes(200_000)
    async with answering(answer) as url:
        assert await get(http, url) == bytes(64 * 1024)


async def test_what_follows_an_answer_is_read_to_keep_the_connection(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_module, "DRAIN_SECONDS", 10)  # this machine may be busy
    answer = OK.replace(b"10", b"200000") + b"\r\n" + bytes(200_000)
    async with answering(answer, stays=True) as url:
        async with http.request("GET", url, setting="X", headers={}) as response:
            await anext(response.parts())
            await drain(response)
            assert response.complete
        await get(http, url)
        assert http.connections == 1
        await http.close()


async def test_a_body_that_never_ends_is_not_waited_for() -> None:
    pool = Http(ModelSettings(stall_seconds=60))
    async with answering(OK + b"\r\n01234", stays=True) as url:
        async with pool.request("GET", url, setting="X", headers={}) as response:
            assert await anext(response.parts()) == b"01234"
            await asyncio.wait_for(drain(response), 5)
        await pool.close()


async def test_nothing_but_network_failures_is_translated(http: Http) -> None:
    async with answering(OK + b"\r\n0123456789") as url:
        with pytest.raises(KeyError):
            async with http.request("GET", url, setting="X", headers={}):
                raise KeyError


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (301, ProviderUnavailableError),
        (400, ProviderRejectedError),
        (401, ProviderAuthError),
        (403, ProviderAuthError),
        (404, ProviderRejectedError),
        (408, ProviderTimeoutError),
        (429, ProviderThrottledError),
        (500, ProviderUnavailableError),
        (503, ProviderUnavailableError),
        (504, ProviderTimeoutError),
        (529, ProviderUnavailableError),
    ],
)
def test_a_status_alone(status: int, error: type[ProviderError]) -> None:
    assert by_status(status) is error


def test_a_refusal_says_who_refused_and_why() -> None:
    error = refused(ProviderRejectedError, "Bedrock", "TooLong", "x" * 1000)
    assert error.detail == f"Bedrock answered TooLong: {'x' * 500}"

    error = refused(ProviderRejectedError, "Bedrock", "TooLong", "")
    assert error.detail == "Bedrock answered TooLong: no reason given"


def test_what_is_said_of_credentials_is_for_the_log_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # One that another test has used keeps what was configured then.
    monkeypatch.setattr(http_module, "log", structlog.get_logger())
    reason = "arn:aws:iam::123456789012:user/ops may not"

    with capture_logs() as logs:
        error = refused(ProviderAuthError, "Bedrock", "AccessDenied", reason)

    assert "123456789012" not in error.detail
    assert logs == [
        {
            "event": "provider_auth_failed",
            "log_level": "warning",
            "provider": "Bedrock",
            "error": "AccessDenied",
            "reason": reason,
        }
    ]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "7"}, 0.25),
        ({"retry-after": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
    ],
)
def test_retry_after_is_read_in_all_its_forms(
    headers: dict[str, str], seconds: float | None
) -> None:
    assert retry_after(headers) == seconds
