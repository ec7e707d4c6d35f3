"""Bedrock's provider against a fake that speaks the real wire and checks signatures."""

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.session import Session

from app.core.config import ROOT, ModelSettings
from app.integrations.llm.base import (
    ProviderAuthError,
    ProviderError,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    Stop,
    TextDelta,
    ThinkingDelta,
    Usage,
)
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.bedrock_places import ModelLackingError, Place
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from app.integrations.llm.messages_api import GO_ON
from tests.fakes import bedrock as fake
from tests.fakes.bedrock import ACCESS_KEY, API_KEY, SECRET_KEY, FakeBedrock
from tests.fakes.faults import Fault, numbered_words
from tests.unit.integrations.llm.calls import ask, assistant, outcome, user
from tests.unit.integrations.llm.conftest import raw_server

HAIKU = "us.anthropic.claude-haiku-4-5-20251001-v1:0"  # takes a prefill
OPUS = "global.anthropic.claude-opus-5"  # refuses one
TAKEN, UNTAKEN = "interleaved-thinking-2025-05-14", "context-1m-2025-08-07"
CATALOGUE = Catalogue.load()
KEYS = {"aws_access_key_id": ACCESS_KEY, "aws_secret_access_key": SECRET_KEY}


@pytest.fixture
async def server() -> AsyncIterator[FakeBedrock]:
    async with FakeBedrock() as running:
        yield running


@pytest.fixture
def provider(server: FakeBedrock, http: Http) -> BedrockProvider:
    return connect(server.url, http)


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for AWS's own files, and nothing else in its credential chain."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    return tmp_path


def connect(url: str, http: Http, **settings: Any) -> BedrockProvider:
    values = {"aws_region": fake.REGION, "bedrock_base_url": f"{url}/", **KEYS}
    return BedrockProvider(ModelSettings(**(values | settings)), CATALOGUE, http)


async def test_a_whole_answer(server: FakeBedrock, provider: BedrockProvider) -> None:
    result = await outcome(provider.stream(ask(OPUS, user("Hi"), system="Be brief.")))

    assert result.error is None
    assert result.text == numbered_words(100)
    assert result.events[0] == Usage(25, 1)
    assert result.events[-2:] == [Usage(25, 100), Stop("end_turn")]
    assert server.calls[0].body == {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 4096,
        "system": [
            {
                "type": "text",
                "text": "Be brief.",
                "cache_control": {"type": "ephemeral"},
            }
        ],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}],
    }


async def test_text_in_any_script_and_thinking(
    server: FakeBedrock, provider: BedrockProvider
) -> None:
    server.plan.update({"text": "Grüße 😀 漢字", "thinking": "Hm"})

    result = await outcome(provider.stream(ask(OPUS)))

    assert result.text == "Grüße 😀 漢字"
    assert result.thinking == "Hm"
    assert ThinkingDelta("", "c2lnbmVk") in result.events


async def test_missing_figures_are_estimated(
    server: FakeBedrock, provider: BedrockProvider
) -> None:
    server.plan.update({"tells_usage": False, "text": "w" * 40})

    result = await outcome(provider.stream(ask(OPUS, user("12345678"))))

    assert result.usages == [
        Usage(6, 0, estimated=True),
        Usage(6, 10, estimated=True),
    ]


@pytest.mark.parametrize(
    "model",
    [
        HAIKU,
        OPUS,
        "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.x-v1:0",
        "arn:aws:bedrock:us-east-1:123456789012:application-inference-profile/a~b-1_2",
    ],
)
async def test_path_and_signature_are_botocores(
    server: FakeBedrock, provider: BedrockProvider, model: str
) -> None:
    """The fake verifies both signatures; botocore also reads what the fake sends."""
    ours = await outcome(provider.stream(ask(model)))
    theirs = await asyncio.to_thread(_by_botocore, server.url, model)

    assert ours.error is None
    assert theirs == ours.text == numbered_words(100)
    assert server.calls[0].path == server.calls[1].path


def _by_botocore(url: str, model: str) -> str:
    session = Session()
    session.set_credentials(ACCESS_KEY, SECRET_KEY)
    client = session.create_client(
        "bedrock-runtime",
        region_name=fake.REGION,
        endpoint_url=url,
        config=Config(retries={"total_max_attempts": 1}),
    )
    message = {"role": "user", "content": [{"type": "text", "text": "Hi"}]}
    body = {"anthropic_version": "bedrock-2023-05-31", "max_tokens": 9}
    answer = client.invoke_model_with_response_stream(
        modelId=model, body=json.dumps({**body, "messages": [message]})
    )
    events = [json.loads(event["chunk"]["bytes"]) for event in answer["body"]]
    client.close()
    return "".join(event.get("delta", {}).get("text", "") for event in events)


class TestFaults:
    @pytest.mark.parametrize(
        ("fault", "error", "words"),
        [
            ("throttle_first", ProviderThrottledError, 0),
            ("unavailable", ProviderUnavailableError, 0),
            ("midstream_exception", ProviderThrottledError, 5),
            ("bad_crc", ProviderStreamBrokenError, 5),
            ("cut", ProviderStreamBrokenError, 5),
            ("stall", ProviderTimeoutError, 5),
            ("missing_end", ProviderStreamBrokenError, 100),
        ],
    )
    async def test_each_is_a_typed_error_after_the_text_that_came(
        self,
        server: FakeBedrock,
        provider: BedrockProvider,
        fault: Fault,
        error: type[ProviderError],
        words: int,
    ) -> None:
        server.plan.faults = [fault]

        result = await outcome(provider.stream(ask(OPUS)))

        assert type(result.error) is error
        assert result.text.split() == numbered_words(words).split()
        assert bool(result.usages) == bool(words)
        assert not any(isinstance(event, Stop) for event in result.events)
        assert (await outcome(provider.stream(ask(OPUS)))).error is None

    @pytest.mark.parametrize(
        ("name", "error"),
        [
            ("throttlingException", ProviderThrottledError),
            ("modelStreamErrorException", ProviderStreamBrokenError),
            ("internalServerException", ProviderUnavailableError),
            ("serviceUnavailableException", ProviderUnavailableError),
            ("modelTimeoutException", ProviderTimeoutError),
            ("validationException", ProviderRejectedError),
            ("fromTheFutureException", ProviderUnavailableError),
        ],
    )
    async def test_an_exception_in_mid_stream_is_classified_by_its_type(
        self,
        server: FakeBedrock,
        provider: BedrockProvider,
        name: str,
        error: type[ProviderError],
    ) -> None:
        server.plan.update({"faults": ["midstream_exception"], "exception": name})

        result = await outcome(provider.stream(ask(OPUS)))

        assert type(result.error) is error
        assert name in str(result.error)

    async def test_leaving_ends_the_call_at_bedrock(
        self, server: FakeBedrock, provider: BedrockProvider
    ) -> None:
        server.plan.faults = ["stall"]

        async with aclosing(provider.stream(ask(OPUS))) as events:  # type: ignore[type-var]  # it is an async generator
            async for event in events:
                if isinstance(event, TextDelta):
                    break

        await asyncio.wait_for(server.calls[0].ended.wait(), 5)
        assert server.calls[0].outcome == "dropped"

    async def test_a_finished_call_leaves_its_connection_to_the_next(
        self, server: FakeBedrock, provider: BedrockProvider
    ) -> None:
        for _ in range(3):
            await outcome(provider.stream(ask(OPUS)))

        assert len({call.peer for call in server.calls}) == 1

    async def test_closing_the_provider_closes_its_connections(
        self, provider: BedrockProvider, http: Http
    ) -> None:
        await outcome(provider.stream(ask(OPUS)))

        await provider.close()

        assert http.connections == 0


class TestContinuation:
    @pytest.mark.parametrize("model", [HAIKU, OPUS])
    @pytest.mark.parametrize("length", [0, 1, 5, 6, 7, 300, 598])
    async def test_the_joined_text_has_every_byte_once(
        self,
        server: FakeBedrock,
        provider: BedrockProvider,
        model: str,
        length: int,
    ) -> None:
        given = numbered_words(100)[:length]

        result = await outcome(
            provider.stream(ask(model, user("Hi"), assistant(given)))
        )

        assert result.error is None
        assert given + result.text == numbered_words(100)
        asked_to_go_on = server.calls[0].body["messages"][-1] == {
            "role": "user",
            "content": [{"type": "text", "text": GO_ON}],
        }
        assert asked_to_go_on == (model == OPUS and length > 0)


class TestBetas:
    @pytest.mark.parametrize(
        ("betas", "tried"),
        [
            ([], [None]),
            ([TAKEN], [[TAKEN]]),
            ([TAKEN, "oauth-2025-04-20"], [[TAKEN, "oauth-2025-04-20"], [TAKEN]]),
            (["oauth-2025-04-20"], [["oauth-2025-04-20"], None]),
            # Bedrock knows it, but this model does not.
            ([TAKEN, UNTAKEN], [[TAKEN, UNTAKEN], None]),
        ],
    )
    async def test_those_that_are_refused_are_left_out_and_remembered(
        self,
        server: FakeBedrock,
        provider: BedrockProvider,
        betas: list[str],
        tried: list[list[str] | None],
    ) -> None:
        for _ in range(2):
            assert await self.forwarded(provider, ", ".join(betas))

        sent = [call.body.get("anthropic_beta") for call in server.calls]
        assert sent == [*tried, tried[-1]]

    async def test_what_is_wrong_for_another_reason_is_asked_once(
        self, server: FakeBedrock, provider: BedrockProvider
    ) -> None:
        with pytest.raises(ProviderRejectedError, match="at least one message"):
            await self.forwarded(provider, TAKEN, messages=[])

        assert len(server.calls) == 1

    async def forwarded(
        self, provider: BedrockProvider, betas: str, **fields: Any
    ) -> bytes:
        asked = {"role": "user", "content": "Say 3 words"}
        body = {"max_tokens": 9, "messages": [asked], **fields}
        return await provider.forward_whole(OPUS, body, betas=betas)


class TestRefusals:
    async def test_a_body_that_claude_does_not_take(
        self, provider: BedrockProvider
    ) -> None:
        result = await outcome(provider.stream(ask(OPUS, user("a"), user("b"))))

        assert type(result.error) is ProviderRejectedError
        assert "roles must alternate" in str(result.error)

    async def test_a_model_that_there_is_not(self, provider: BedrockProvider) -> None:
        result = await outcome(provider.stream(ask("nonsense")))

        assert type(result.error) is ModelLackingError

    @pytest.mark.parametrize(
        "keys",
        [
            {"aws_access_key_id": "AKIDNOBODY"},
            {"aws_secret_access_key": "wrong"},
            {"bedrock_api_key": "wrong"},
        ],
    )
    async def test_credentials_that_aws_does_not_take(
        self, server: FakeBedrock, http: Http, keys: Mapping[str, str]
    ) -> None:
        provider = connect(server.url, http, **keys)

        result = await outcome(provider.stream(ask(OPUS)))

        assert type(result.error) is ProviderAuthError

    @pytest.mark.parametrize(
        ("status", "header", "body", "error"),
        [
            (400, "ThrottlingException:http://x/", b"", ProviderThrottledError),
            (400, "ServiceQuotaExceededException", b"", ProviderThrottledError),
            (429, "ModelNotReadyException", b"", ProviderUnavailableError),
            (424, "ModelErrorException", b"", ProviderUnavailableError),
            (408, "ModelTimeoutException", b"", ProviderTimeoutError),
            (404, "ResourceNotFoundException", b"", ModelLackingError),
            (400, "ExpiredTokenException", b"", ProviderAuthError),
            (500, "", b'{"__type": "a.b#ThrottlingException"}', ProviderThrottledError),
            (400, "", b'{"Message": "x"}', ProviderRejectedError),
            (429, "", b"<html>", ProviderThrottledError),
            (403, "", b"[]", ProviderAuthError),
            (502, "FromTheFutureException", b"", ProviderUnavailableError),
        ],
    )
    async def test_the_exceptions_name_goes_before_the_status(
        self,
        http: Http,
        status: int,
        header: str,
        body: bytes,
        error: type[ProviderError],
    ) -> None:
        named = f"x-amzn-errortype: {header}\r\n" if header else ""
        head = f"HTTP/1.1 {status} X\r\n{named}Content-Length: {len(body)}\r\n\r\n"
        async with raw_server(_answering(head.encode() + body)) as url:
            result = await outcome(connect(url, http).stream(ask(OPUS)))

        assert type(result.error) is error

    async def test_a_closed_port_names_the_variable_to_check(self, http: Http) -> None:
        async with raw_server(_answering(b"")) as url:
            pass

        result = await outcome(connect(url, http).stream(ask(OPUS)))

        assert type(result.error) is ProviderUnavailableError
        assert "BEDROCK_BASE_URL" in str(result.error)


class TestFrames:
    @pytest.mark.parametrize(
        ("headers", "payload", "error"),
        [
            ({":message-type": "event", ":event-type": "chunk"}, b"{}", "cannot read"),
            ({":message-type": "event", ":event-type": "chunk"}, b"{", "cannot read"),
            (
                {":message-type": "event", ":event-type": "chunk"},
                b'{"bytes": "e30"}',
                "cannot read",
            ),
            ({":message-type": "exception"}, b"[]", "cannot read"),
            (
                {":message-type": "error", ":error-code": "InternalFailure"},
                b"",
                "InternalFailure",
            ),
        ],
    )
    async def test_strange_frames(
        self, http: Http, headers: dict[str, str], payload: bytes, error: str
    ) -> None:
        result = await self._read(http, fake.encode(headers, payload))

        assert result.error is not None
        assert error in str(result.error)

    async def test_events_other_than_chunks_are_skipped(self, http: Http) -> None:
        other = fake.encode({":message-type": "event", ":event-type": "new"}, b"{}")
        delta = {"stop_reason": "end_turn"}
        stop = fake.chunk({"type": "message_delta", "delta": delta, "usage": {}})

        result = await self._read(http, other + stop + other)

        assert len(result.usages) == 1

    async def test_an_end_inside_a_frame(self, http: Http) -> None:
        result = await self._read(http, fake.chunk({"type": "ping"})[:20])

        assert "inside a frame" in str(result.error)

    @staticmethod
    async def _read(http: Http, frames: bytes) -> Any:
        async with raw_server(_answering(b"HTTP/1.1 200 OK\r\n\r\n" + frames)) as url:
            return await outcome(connect(url, http).stream(ask(OPUS)))


def _answering(answer: bytes) -> Any:
    async def handle(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
        await reader.readexactly(length)
        writer.write(answer)

    return handle


class TestCredentials:
    async def test_a_bedrock_api_key_goes_before_keys(
        self, server: FakeBedrock, http: Http
    ) -> None:
        provider = connect(server.url, http, bedrock_api_key=API_KEY)

        assert (await outcome(provider.stream(ask(OPUS)))).error is None
        assert server.calls[0].headers["Authorization"] == f"Bearer {API_KEY}"

    async def test_temporary_keys_send_their_token(
        self, server: FakeBedrock, http: Http
    ) -> None:
        provider = connect(server.url, http, aws_session_token="a token")

        assert (await outcome(provider.stream(ask(OPUS)))).error is None
        assert server.calls[0].headers["X-Amz-Security-Token"] == "a token"

    async def test_without_keys_awss_own_chain_is_asked(
        self, server: FakeBedrock, http: Http, aws: Path
    ) -> None:
        lines = f"aws_access_key_id={ACCESS_KEY}\naws_secret_access_key={SECRET_KEY}\n"
        (aws / "credentials").write_text(f"[default]\n{lines}", encoding="utf-8")
        provider = connect(server.url, http, aws_access_key_id="")

        assert provider.missing is None
        assert await provider.models()
        assert (await outcome(provider.stream(ask(OPUS)))).error is None

    @pytest.mark.usefixtures("aws")
    async def test_a_chain_with_nothing_in_it_says_what_to_set(
        self, server: FakeBedrock, http: Http
    ) -> None:
        provider = connect(server.url, http, aws_access_key_id="")

        for models in await asyncio.gather(provider.models(), provider.models()):
            assert models == []
        assert "AWS_BEARER_TOKEN_BEDROCK" in str(provider.missing)
        result = await outcome(provider.stream(ask(OPUS)))
        assert type(result.error) is ProviderNotConfiguredError
        assert str(result.error) == provider.missing

    @pytest.mark.usefixtures("aws")
    async def test_a_profile_that_there_is_not_counts_as_nothing(
        self, server: FakeBedrock, http: Http, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_PROFILE", "nobody")
        provider = connect(server.url, http, aws_access_key_id="")

        assert await provider.models() == []
        assert provider.missing is not None

    async def test_a_roles_keys_are_renewed_and_a_failure_is_told(
        self, server: FakeBedrock, http: Http, aws: Path
    ) -> None:
        keys = {
            "Version": 1,
            "AccessKeyId": ACCESS_KEY,
            "SecretAccessKey": SECRET_KEY,
            "SessionToken": "first",
            # So near that botocore renews them at each use.
            "Expiration": (datetime.now(UTC) + timedelta(minutes=1)).isoformat(),
        }
        file = aws / "keys.json"
        file.write_text(json.dumps(keys), encoding="utf-8")
        config = f"[default]\ncredential_process = cat {file}\n"
        (aws / "config").write_text(config, encoding="utf-8")
        provider = connect(server.url, http, aws_access_key_id="")
        assert await provider.models()

        file.write_text(json.dumps({**keys, "SessionToken": "second"}), "utf-8")
        assert (await outcome(provider.stream(ask(OPUS)))).error is None
        assert server.calls[0].headers["X-Amz-Security-Token"] == "second"

        file.unlink()
        result = await outcome(provider.stream(ask(OPUS)))
        assert type(result.error) is ProviderAuthError


class TestModels:
    async def test_without_a_region_it_is_not_set_up(self, http: Http) -> None:
        provider = connect("", http, aws_region="")

        assert "AWS_REGION" in str(provider.missing)
        assert await provider.models() == []
        result = await outcome(provider.stream(ask(OPUS)))
        assert type(result.error) is ProviderNotConfiguredError

    @pytest.mark.parametrize(
        ("region", "profile"),
        [
            ("us-east-1", "us"),
            ("us-gov-west-1", "us-gov"),
            ("eu-central-1", "eu"),
            ("ap-northeast-1", "global"),
        ],
    )
    async def test_they_are_offered_by_the_regions_inference_profile(
        self, http: Http, region: str, profile: str
    ) -> None:
        provider = connect("", http, aws_region=region, bedrock_models=("own:0",))

        names = [info.name for info in await provider.models()]

        assert names[0] == f"bedrock/{profile}.anthropic.claude-sonnet-5-5"
        assert len(names) == len(CATALOGUE.names("bedrock")) + 1
        assert names[-1] == "bedrock/own:0"
        assert await provider.models() is await provider.models()

    async def test_without_a_base_url_it_calls_the_regions_own(
        self, http: Http
    ) -> None:
        provider = connect("", http, bedrock_base_url="")

        url = provider._url(Place("us-east-1", OPUS), "invoke")
        assert url.startswith("https://bedrock-runtime.us-east-1.amazonaws.com/model/")


def test_nothing_of_aws_is_loaded_before_it_is_used() -> None:
    program = (
        "import sys, app.integrations.llm.bedrock as b;"
        "sys.exit(any(m.startswith('botocore') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
