"""AWS Bedrock: Claude by either of Bedrock's two endpoints, and embeddings.

`runtime` sends its events inside AWS event-stream frames (reference:
`InvokeModelWithResponseStream` in Amazon Bedrock's API reference). `mantle` is newer
and sends them as Anthropic does, as server-sent events (reference: "Inference using
Anthropic Messages API" in the user guide); it knows models by their plain ids, without
inference profiles, and none for embeddings. botocore signs, but takes no part in the
transport.
"""

import asyncio
import binascii
import re
import time
from base64 import b64encode
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import cached_property
from http import HTTPStatus
from itertools import starmap
from typing import Any, ClassVar
from urllib.parse import quote

import orjson
import structlog

from app.core.config import ModelSettings
from app.core.http1 import Response
from app.integrations.llm import bedrock_embeddings
from app.integrations.llm.answers import ask, readable
from app.integrations.llm.base import (
    ChatRequest,
    ModelInfo,
    ProviderAuthError,
    ProviderError,
    ProviderEvent,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    ProviderStreamBrokenError,
    ProviderThrottledError,
    ProviderTimeoutError,
    ProviderUnavailableError,
    Usage,
    joined,
)
from app.integrations.llm.catalogue import Catalogue, base_name
from app.integrations.llm.embeddings import Embedded, EmbedRequest
from app.integrations.llm.eventstream import EventStreamReader, Header
from app.integrations.llm.forwarding import (
    Spoken,
    beta_list,
    exchange,
    without_stream,
)
from app.integrations.llm.http import (
    Http,
    body_of,
    by_status,
    drain,
    refused,
    retry_after,
)
from app.integrations.llm.messages_api import (
    MessagesReader,
    countable,
    message_body,
    refusal,
)
from app.integrations.llm.messages_sse import VERSION, stream_messages
from app.integrations.llm.tokens import estimate_body

log = structlog.get_logger(__name__)

ANTHROPIC_VERSION = "bedrock-2023-05-31"

CHAIN_SECONDS = 60.0
"""How long it is believed that AWS's credential chain has nothing."""

_WHO = "Bedrock"
_SERVICES = {"runtime": "bedrock", "mantle": "bedrock-mantle"}
"""What a signature names, by endpoint."""

_ACCEPTED = {True: "application/vnd.amazon.eventstream", False: "application/json"}
"""Of an answer that is streamed, and of one that is not."""
_NONE: Mapping[str, str] = {}
_TYPE = re.compile(rb'\s*\{\s*"type"\s*:\s*"(\w+)"')
"""How an event mostly begins; its type is its name."""

_VERSIONED = re.compile(r"-v\d+(?::\d+)?$")
_GEOGRAPHIES = {"us-gov-": "us-gov", "us-": "us", "eu-": "eu"}

_ERRORS: Mapping[str, type[ProviderError]] = {
    "throttling": ProviderThrottledError,
    "toomanyrequests": ProviderThrottledError,
    "servicequotaexceeded": ProviderThrottledError,
    "modelnotready": ProviderUnavailableError,
    "modelerror": ProviderUnavailableError,
    "serviceunavailable": ProviderUnavailableError,
    "internalserver": ProviderUnavailableError,
    "internalfailure": ProviderUnavailableError,
    "modelstreamerror": ProviderStreamBrokenError,
    "modeltimeout": ProviderTimeoutError,
    "accessdenied": ProviderAuthError,
    "unrecognizedclient": ProviderAuthError,
    "invalidsignature": ProviderAuthError,
    "signaturedoesnotmatch": ProviderAuthError,
    "incompletesignature": ProviderAuthError,
    "invalidclienttokenid": ProviderAuthError,
    "missingauthenticationtoken": ProviderAuthError,
    "expiredtoken": ProviderAuthError,
    "optinrequired": ProviderAuthError,
    "validation": ProviderRejectedError,
    "resourcenotfound": ProviderRejectedError,
}
"""By the exception's name in lower case without its last word: `ThrottlingException`
before the answer, `throttlingException` in its middle. ModelNotReady comes with a 429
and ServiceQuotaExceeded with a 400, so the status would mislead."""


class BedrockProvider:
    """`bedrock/...`: model ids, inference profiles and ARNs of AWS_REGION."""

    name = "bedrock"
    speaks: ClassVar[Spoken] = "messages"

    def __init__(self, models: ModelSettings, catalogue: Catalogue, http: Http) -> None:
        self._settings = models
        self._catalogue = catalogue
        self._http = http
        self._mantle = models.bedrock_endpoint == "mantle"
        self._base = models.bedrock_base_url.rstrip("/") or (
            f"https://bedrock-mantle.{models.aws_region}.api.aws/anthropic"
            if self._mantle
            else f"https://bedrock-runtime.{models.aws_region}.amazonaws.com"
        )
        self._setting = "BEDROCK_BASE_URL" if models.bedrock_base_url else "AWS_REGION"
        self._credentials: Any = None
        self._looked_until = 0.0
        self._looking = asyncio.Lock()

    @property
    def missing(self) -> str | None:
        if not self._settings.aws_region:
            return (
                "Set AWS_REGION (such as us-east-1) and either AWS_BEARER_TOKEN_BEDROCK"
                " or AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY; on AWS a role will "
                "do."
            )
        if self._looked_until and self._credentials is None:
            return (
                "No AWS credentials were found: set AWS_BEARER_TOKEN_BEDROCK, or "
                "AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, or give this machine an "
                "AWS profile or role."
            )
        return None

    async def models(self) -> list[ModelInfo]:
        """The catalogue's and those of BEDROCK_MODELS; empty without credentials."""
        if not self._settings.aws_region or not await self._ready():
            return []
        return self._offered

    async def stream(self, request: ChatRequest) -> AsyncIterator[ProviderEvent]:
        known = self._catalogue.info(f"{self.name}/{request.model}")
        info = self._catalogue.current(known)
        message, cut = message_body(request, capabilities=info.capabilities)
        reply = MessagesReader(_WHO, request, repeated=cut)
        call = self._by_mantle if self._mantle else self._by_runtime
        async with aclosing(call(request.model, message, reply)) as events:
            async for event in events:
                yield event

    async def _by_runtime(
        self, model: str, message: Mapping[str, Any], reply: MessagesReader
    ) -> AsyncGenerator[ProviderEvent]:
        body = orjson.dumps({"anthropic_version": ANTHROPIC_VERSION, **message})
        url = self._base + _path(model, "invoke-with-response-stream")
        given = {"Content-Type": "application/json", "Accept": _ACCEPTED[True]}
        headers = await self._authorized(url, given, body)
        frames = EventStreamReader()
        async with self._http.request(
            "POST", url, setting=self._setting, headers=headers, body=body
        ) as response:
            if response.status != HTTPStatus.OK:
                raise _refused(response, await body_of(response))
            async for chunk in response.parts():
                for event in joined(reply.read(starmap(_event, frames.feed(chunk)))):
                    yield event
                if reply.stopped:
                    await drain(response)
                    return
        frames.close()
        reply.end()

    async def _by_mantle(
        self, model: str, message: Mapping[str, Any], reply: MessagesReader
    ) -> AsyncGenerator[ProviderEvent]:
        sent = {"model": self._plain(model), **message, "stream": True}
        body = orjson.dumps(sent)
        url = f"{self._base}/v1/messages"
        given = {"Content-Type": "application/json", "anthropic-version": VERSION}
        events = stream_messages(
            self._http,
            url,
            who=_WHO,
            setting=self._setting,
            headers=await self._authorized(url, given, body),
            body=body,
            reply=reply,
            refusal=_refused,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def forward(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> AsyncGenerator[bytes]:
        stream = bool(body.get("stream"))
        if self._mantle:
            url = f"{self._base}/v1/messages"
            sent = {**body, "model": self._plain(model)}
            given = {"Content-Type": "application/json", "anthropic-version": VERSION}
            given |= {"anthropic-beta": betas} if betas else {}
        else:
            action = "invoke-with-response-stream" if stream else "invoke"
            url = self._base + _path(model, action)
            sent = {"anthropic_version": ANTHROPIC_VERSION, **without_stream(body)}
            if betas:
                sent["anthropic_beta"] = beta_list(betas)
            given = {"Content-Type": "application/json", "Accept": _ACCEPTED[stream]}
        wire = orjson.dumps(sent)
        answer = exchange(
            self._http,
            url,
            setting=self._setting,
            headers=await self._authorized(url, given, wire),
            body=wire,
            stream=stream,
            refusal=_refused,
        )
        framed = stream and not self._mantle
        async with aclosing(_unframed(answer) if framed else answer) as parts:
            async for part in parts:
                yield part

    def most_inputs(self, model: str) -> int:
        return bedrock_embeddings.most_inputs(model)

    async def embed(self, request: EmbedRequest) -> Embedded:
        if self._mantle:
            raise ProviderNotConfiguredError(
                "Bedrock's Mantle endpoint has no models for embeddings: set "
                "BEDROCK_ENDPOINT=runtime."
            )
        asked = bedrock_embeddings.body_of(request)
        answer, headers = await self._ask(_path(request.model, "invoke"), asked)
        with readable(_WHO):
            return bedrock_embeddings.read(request, answer, headers)

    async def count_body(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> Usage:
        """Our estimate where AWS does not count: that takes a permission of its own."""
        count = self._count_by_mantle if self._mantle else self._count_by_runtime
        try:
            return Usage(await count(model, body, betas), 0)
        except (ProviderRejectedError, ProviderAuthError) as error:
            try:
                return Usage(estimate_body(body), 0, estimated=True)
            except (KeyError, TypeError, AttributeError):
                raise error from None

    async def _count_by_runtime(
        self, model: str, body: Mapping[str, Any], betas: str
    ) -> int:
        """It counts for some of the models, and knows them by their plain ids."""
        info = self._catalogue.info(f"{self.name}/{model}")
        sent = {
            "anthropic_version": ANTHROPIC_VERSION,
            "max_tokens": info.max_output_tokens,  # of which a count says nothing
            **without_stream(body),
        }
        if betas:
            sent["anthropic_beta"] = beta_list(betas)
        wrapped = b64encode(orjson.dumps(sent)).decode()
        path = _path(self._plain(model), "count-tokens")
        answer, _ = await self._ask(path, {"input": {"invokeModel": {"body": wrapped}}})
        with readable(_WHO):
            return int(answer["inputTokens"])

    async def _count_by_mantle(
        self, model: str, body: Mapping[str, Any], betas: str
    ) -> int:
        headers = {"anthropic-version": VERSION}
        headers |= {"anthropic-beta": betas} if betas else {}
        asked = {**countable(body), "model": self._plain(model)}
        answer, _ = await self._ask("/v1/messages/count_tokens", asked, headers)
        with readable(_WHO):
            return int(answer["input_tokens"])

    async def close(self) -> None:
        await self._http.close()

    def _plain(self, model: str) -> str:
        """A chat that began by the other endpoint names an inference profile."""
        return base_name(f"{self.name}/{model}").removeprefix(f"{self.name}/")

    @cached_property
    def _offered(self) -> list[ModelInfo]:
        """The catalogue's models by the inference profile of the region's geography.

        Hardly a model of today takes calls but through an inference profile, and one
        that serves the world would carry prompts out of the EU or the US. Mantle has
        none, and no models whose ids end with a version, as those for embeddings do.
        """
        names = self._catalogue.names(self.name)
        if self._mantle:
            names = [name for name in names if not _VERSIONED.search(name)]
        else:
            names = self._by_profile(names)
        names += [f"{self.name}/{model}" for model in self._settings.bedrock_models]
        return [self._catalogue.info(name) for name in dict.fromkeys(names)]

    def _by_profile(self, names: list[str]) -> list[str]:
        region = self._settings.aws_region
        geographies = (
            g for start, g in _GEOGRAPHIES.items() if region.startswith(start)
        )
        profile = next(geographies, "global")
        return [
            name
            if bedrock_embeddings.lacks_profile(name)
            else name.replace("/", f"/{profile}.", 1)
            for name in names
        ]

    async def _ask(
        self, path: str, asked: Mapping[str, Any], headers: Mapping[str, str] = _NONE
    ) -> tuple[Any, Mapping[str, str]]:
        """What a whole answer holds, and its headers."""
        url, body = self._base + path, orjson.dumps(asked)
        given = {"Content-Type": "application/json", "Accept": _ACCEPTED[False]}
        given |= headers
        return await ask(
            self._http,
            url,
            who=_WHO,
            setting=self._setting,
            headers=await self._authorized(url, given, body),
            body=body,
            refusal=_refused,
        )

    async def _authorized(
        self, url: str, headers: dict[str, str], body: bytes
    ) -> Mapping[str, str]:
        if not self._settings.aws_region or not await self._ready():
            raise ProviderNotConfiguredError(str(self.missing))
        if key := self._settings.bedrock_api_key:
            return {**headers, "Authorization": f"Bearer {key.get_secret_value()}"}
        place = (self._settings.aws_region, _SERVICES[self._settings.bedrock_endpoint])
        return _signed(await self._current(), place, url, headers, body)

    async def _ready(self) -> bool:
        """Whether there are credentials; the first call looks for them."""
        if self._settings.bedrock_api_key:
            return True
        if self._credentials is None:
            await self._look()
        return self._credentials is not None

    async def _look(self) -> None:
        async with self._looking:
            if self._credentials or time.monotonic() < self._looked_until:
                return  # another call has just looked
            self._credentials = await asyncio.to_thread(_found, self._settings)
            self._looked_until = time.monotonic() + CHAIN_SECONDS

    async def _current(self) -> Any:
        """Credentials for one signature; a role's are renewed by botocore, in time."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - loaded by _found

        try:
            if hasattr(self._credentials, "refresh_needed"):
                return await asyncio.to_thread(self._credentials.get_frozen_credentials)
            return self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise refused(
                ProviderAuthError, "AWS", type(error).__name__, str(error)
            ) from error


def _path(model: str, action: str) -> str:
    return f"/model/{quote(model, safe='')}/{action}"


def _found(settings: ModelSettings) -> Any:
    """Credentials from the settings, else from AWS's own chain; None without any.

    In a thread: botocore loads slowly, and the chain may ask the network.
    """
    # 9 MB and a tenth of a second that an installation without Bedrock never pays.
    from botocore.credentials import Credentials  # noqa: PLC0415 - see above
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - see above
    from botocore.session import Session  # noqa: PLC0415 - see above

    secret, token = settings.aws_secret_access_key, settings.aws_session_token
    if settings.aws_access_key_id and secret:
        return Credentials(
            settings.aws_access_key_id,
            secret.get_secret_value(),
            token.get_secret_value() if token else None,
        )
    session = Session()
    session.set_config_variable("region", settings.aws_region)
    try:
        return session.get_credentials()
    except BotoCoreError as error:
        log.warning("aws_credentials_unreadable", reason=str(error))
        return None


def _signed(
    credentials: Any,
    place: tuple[str, str],
    url: str,
    headers: Mapping[str, str],
    body: bytes,
) -> Mapping[str, str]:
    """Those headers with a Signature Version 4; `place` is the region and the service.

    The path is quoted once more for the signature, as AWS wants it of every service
    but S3: a colon of the model's id is %3A in the URL, and %253A in what is signed.
    """
    from botocore.auth import SigV4Auth  # noqa: PLC0415 - loaded by _found
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - loaded by _found

    request = AWSRequest("POST", url, headers=headers, data=body)
    region, service = place
    SigV4Auth(credentials, service, region).add_auth(request)
    return dict(request.headers.items())


async def _unframed(answer: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
    """The same events as Anthropic itself sends them: the text of each is untouched."""
    frames = EventStreamReader()
    async with aclosing(answer) as parts:
        async for part in parts:
            events: list[bytes] = []
            try:
                datas = starmap(_data, frames.feed(part))
                events.extend(_sent_event(data) for data in datas if data is not None)
            except ProviderError:
                yield b"".join(events)  # what came before it counts
                raise
            yield b"".join(events)
    frames.close()


def _sent_event(data: bytes) -> bytes:
    found = _TYPE.match(data)
    kind = found[1] if found else str(orjson.loads(data)["type"]).encode()
    return b"event: %b\ndata: %b\n\n" % (kind, data)


def _event(headers: Mapping[str, Header], payload: bytes) -> Mapping[str, Any]:
    data = _data(headers, payload)
    if data is None:
        return {"type": "unknown"}
    try:
        event: Mapping[str, Any] = orjson.loads(data)
    except ValueError as error:
        raise _unreadable() from error
    return event


def _data(headers: Mapping[str, Header], payload: bytes) -> bytes | None:
    """The Messages event in a frame; raises what a frame of another kind tells.

    None for a frame of a kind that we do not know.
    """
    kind = headers.get(":message-type")
    if kind == "error":
        name = str(headers.get(":error-code"))
        raise _error(name, str(headers.get(":error-message", "")), 500)
    try:
        content = orjson.loads(payload)
        if kind == "exception":
            name = str(headers.get(":exception-type"))
            raise _error(name, str(content.get("message", "")), 500)
        if headers.get(":event-type") != "chunk":
            return None
        return binascii.a2b_base64(content["bytes"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unreadable() from error


def _unreadable() -> ProviderStreamBrokenError:
    return ProviderStreamBrokenError("Bedrock sent a frame we cannot read.")


def _refused(response: Response, body: bytes) -> ProviderError:
    """The error of a call that was not taken: its name is in a header or the body.

    AWS names it so; behind Mantle's door, the Messages API has names of its own.
    """
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        answer = {}
    wait = retry_after(response.headers)
    name = response.headers.get("x-amzn-errortype") or str(answer.get("__type", ""))
    if not name and "error" in answer:
        return refusal(_WHO, response.status, body, wait)
    message = answer.get("message") or answer.get("Message") or ""
    name = name or f"status {response.status}"
    return _error(name, str(message), response.status, wait)


def _error(
    name: str, message: str, status: int, wait: float | None = None
) -> ProviderError:
    """By name, which may be wrapped: `com.amazon...#ThrottlingException:http://...`."""
    name = name.partition(":")[0].rpartition("#")[2]
    kind = _ERRORS.get(name.lower().removesuffix("exception"))
    return refused(kind or by_status(status), _WHO, name, message, wait=wait)
