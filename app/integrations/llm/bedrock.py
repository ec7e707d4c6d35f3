"""Claude on AWS Bedrock: the Messages API by either of Bedrock's two endpoints.

`runtime` sends its events inside AWS event-stream frames (reference:
`InvokeModelWithResponseStream` in Amazon Bedrock's API reference). `mantle` is newer
and sends them as Anthropic does, as server-sent events (reference: "Inference using
Anthropic Messages API" in the user guide); it knows models by their plain ids, without
inference profiles. botocore signs, but takes no part in the transport.
"""

import asyncio
import binascii
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from functools import cached_property
from http import HTTPStatus
from itertools import starmap
from typing import Any
from urllib.parse import quote

import orjson
import structlog

from app.core.config import ModelSettings
from app.core.http1 import Response
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
    is_answer,
    joined,
)
from app.integrations.llm.bedrock_places import (
    HOME_PROFILES,
    ModelLackingError,
    Place,
    Places,
)
from app.integrations.llm.catalogue import Catalogue, base_name
from app.integrations.llm.eventstream import EventStreamReader, Header
from app.integrations.llm.http import (
    Http,
    body_of,
    by_status,
    drain,
    refused,
    retry_after,
)
from app.integrations.llm.messages_api import MessagesReader, message_body, refusal
from app.integrations.llm.messages_sse import VERSION, stream_messages

log = structlog.get_logger(__name__)

ANTHROPIC_VERSION = "bedrock-2023-05-31"

CHAIN_SECONDS = 60.0
"""How long it is believed that AWS's credential chain has nothing."""

_WHO = "Bedrock"
_SERVICES = {"runtime": "bedrock", "mantle": "bedrock-mantle"}
"""What a signature names, by endpoint."""

_VERSIONED = re.compile(r"-v\d+(?::\d+)?$")
_LACKING = re.compile(r"model identifier|on-demand throughput", re.IGNORECASE)
"""What AWS says of a model that a region does not have, or not by this profile."""

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
    "resourcenotfound": ModelLackingError,
}
"""By the exception's name in lower case without its last word: `ThrottlingException`
before the answer, `throttlingException` in its middle. ModelNotReady comes with a 429
and ServiceQuotaExceeded with a 400, so the status would mislead."""


class BedrockProvider:
    """`bedrock/...`: model ids, inference profiles and ARNs of AWS_REGION."""

    name = "bedrock"

    def __init__(self, models: ModelSettings, catalogue: Catalogue, http: Http) -> None:
        self._settings = models
        self._catalogue = catalogue
        self._http = http
        self._mantle = models.bedrock_endpoint == "mantle"
        self._address = models.bedrock_base_url.rstrip("/") or (
            "https://bedrock-mantle.{region}.api.aws/anthropic"
            if self._mantle
            else "https://bedrock-runtime.{region}.amazonaws.com"
        )
        self._places = Places(models)
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
        by_endpoint = self._by_mantle if self._mantle else self._by_runtime

        def call(place: Place) -> AsyncGenerator[ProviderEvent]:
            reply = MessagesReader(_WHO, request, repeated=cut)
            return by_endpoint(place, message, reply)

        events = self._places.first(request.model, call, begun=is_answer)
        async with aclosing(events):
            async for event in events:
                yield event

    async def _by_runtime(
        self, place: Place, message: Mapping[str, Any], reply: MessagesReader
    ) -> AsyncGenerator[ProviderEvent]:
        body = orjson.dumps({"anthropic_version": ANTHROPIC_VERSION, **message})
        model = quote(place.model, safe="")
        url = f"{self._base_in(place)}/model/{model}/invoke-with-response-stream"
        given = {
            "Content-Type": "application/json",
            "Accept": "application/vnd.amazon.eventstream",
        }
        headers = await self._authorized(place, url, given, body)
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
        self, place: Place, message: Mapping[str, Any], reply: MessagesReader
    ) -> AsyncGenerator[ProviderEvent]:
        # A chat that began by the other endpoint names an inference profile.
        plain = base_name(f"{self.name}/{place.model}").removeprefix(f"{self.name}/")
        body = orjson.dumps({"model": plain, **message, "stream": True})
        url = f"{self._base_in(place)}/v1/messages"
        given = {"Content-Type": "application/json", "anthropic-version": VERSION}
        events = stream_messages(
            self._http,
            url,
            who=_WHO,
            setting=self._setting,
            headers=await self._authorized(place, url, given, body),
            body=body,
            reply=reply,
            refusal=_refused,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    async def close(self) -> None:
        await self._http.close()

    @cached_property
    def _offered(self) -> list[ModelInfo]:
        """The catalogue's models by the inference profile of the region's geography.

        Hardly a model of today takes calls but through an inference profile, and one
        that serves the world would carry prompts out of the EU or the US. Mantle has
        none, and no models whose ids end with a version.
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
            g for start, g in HOME_PROFILES.items() if region.startswith(start)
        )
        profile = next(geographies, "global")
        return [name.replace("/", f"/{profile}.", 1) for name in names]

    def _base_in(self, place: Place) -> str:
        return self._address.replace("{region}", place.region)

    async def _authorized(
        self, place: Place, url: str, headers: dict[str, str], body: bytes
    ) -> Mapping[str, str]:
        if not self._settings.aws_region or not await self._ready():
            raise ProviderNotConfiguredError(str(self.missing))
        if key := self._settings.bedrock_api_key:
            return {**headers, "Authorization": f"Bearer {key.get_secret_value()}"}
        scope = (place.region, _SERVICES[self._settings.bedrock_endpoint])
        return _signed(await self._current(), scope, url, headers, body)

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
    scope: tuple[str, str],
    url: str,
    headers: Mapping[str, str],
    body: bytes,
) -> Mapping[str, str]:
    """Those headers with a Signature Version 4; `scope` is the region and the service.

    The path is quoted once more for the signature, as AWS wants it of every service
    but S3: a colon of the model's id is %3A in the URL, and %253A in what is signed.
    """
    from botocore.auth import SigV4Auth  # noqa: PLC0415 - loaded by _found
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - loaded by _found

    request = AWSRequest("POST", url, headers=headers, data=body)
    region, service = scope
    SigV4Auth(credentials, service, region).add_auth(request)
    return dict(request.headers.items())


def _event(headers: Mapping[str, Header], payload: bytes) -> Mapping[str, Any]:
    """The Messages event in a frame; raises what a frame of another kind tells."""
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
            return {"type": "unknown"}
        event: Mapping[str, Any] = orjson.loads(binascii.a2b_base64(content["bytes"]))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ProviderStreamBrokenError(
            "Bedrock sent a frame we cannot read."
        ) from error
    return event


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
        error = refusal(_WHO, response.status, body, wait)
        if response.status == HTTPStatus.NOT_FOUND:
            return ModelLackingError(error.detail)
        return error
    message = answer.get("message") or answer.get("Message") or ""
    name = name or f"status {response.status}"
    return _error(name, str(message), response.status, wait)


def _error(
    name: str, message: str, status: int, wait: float | None = None
) -> ProviderError:
    """By name, which may be wrapped: `com.amazon...#ThrottlingException:http://...`."""
    name = name.partition(":")[0].rpartition("#")[2]
    kind = _ERRORS.get(name.lower().removesuffix("exception")) or by_status(status)
    if kind is ProviderRejectedError and _LACKING.search(message):
        kind = ModelLackingError
    return refused(kind, _WHO, name, message, wait=wait)
