"""Claude on AWS Bedrock: the Messages API by either of Bedrock's two endpoints.

`runtime` sends its events inside AWS event-stream frames (reference:
`InvokeModelWithResponseStream` in Amazon Bedrock's API reference). `mantle` is newer
and sends them as Anthropic does, as server-sent events (reference: "Inference using
Anthropic Messages API" in the user guide); it knows models by their plain ids, without
inference profiles. botocore signs, but takes no part in the transport.
"""

import asyncio
import re
import time
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
from app.integrations.llm.base import (
    ChatRequest,
    ModelInfo,
    ProviderAuthError,
    ProviderEvent,
    ProviderNotConfiguredError,
    is_answer,
    joined,
)
from app.integrations.llm.bedrock_places import (
    HOME_PROFILES,
    Place,
    Places,
)
from app.integrations.llm.bedrock_wire import WHO, event_of, refusal_of, unframed
from app.integrations.llm.catalogue import Catalogue, base_name
from app.integrations.llm.eventstream import EventStreamReader
from app.integrations.llm.forwarding import (
    Spoken,
    beta_list,
    exchange,
    without_stream,
)
from app.integrations.llm.http import (
    Http,
    body_of,
    drain,
    refused,
)
from app.integrations.llm.messages_api import MessagesReader, message_body
from app.integrations.llm.messages_sse import VERSION, stream_messages

log = structlog.get_logger(__name__)

ANTHROPIC_VERSION = "bedrock-2023-05-31"

CHAIN_SECONDS = 60.0
"""How long it is believed that AWS's credential chain has nothing."""

_SERVICES = {"runtime": "bedrock", "mantle": "bedrock-mantle"}
"""What a signature names, by endpoint."""

_ACCEPTED = {True: "application/vnd.amazon.eventstream", False: "application/json"}
"""Of an answer that is streamed, and of one that is not."""
_VERSIONED = re.compile(r"-v\d+(?::\d+)?$")


class BedrockProvider:
    """`bedrock/...`: model ids, inference profiles and ARNs of AWS_REGION."""

    name = "bedrock"
    speaks: ClassVar[Spoken] = "messages"

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
            reply = MessagesReader(WHO, request, repeated=cut)
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
        given = {"Content-Type": "application/json", "Accept": _ACCEPTED[True]}
        headers = await self._authorized(place, url, given, body)
        frames = EventStreamReader()
        async with self._http.request(
            "POST", url, setting=self._setting, headers=headers, body=body
        ) as response:
            if response.status != HTTPStatus.OK:
                raise refusal_of(response, await body_of(response))
            async for chunk in response.parts():
                for event in joined(reply.read(starmap(event_of, frames.feed(chunk)))):
                    yield event
                if reply.stopped:
                    await drain(response)
                    return
        frames.close()
        reply.end()

    async def _by_mantle(
        self, place: Place, message: Mapping[str, Any], reply: MessagesReader
    ) -> AsyncGenerator[ProviderEvent]:
        sent = {"model": self._plain(place.model), **message, "stream": True}
        body = orjson.dumps(sent)
        url = f"{self._base_in(place)}/v1/messages"
        given = {"Content-Type": "application/json", "anthropic-version": VERSION}
        events = stream_messages(
            self._http,
            url,
            who=WHO,
            setting=self._setting,
            headers=await self._authorized(place, url, given, body),
            body=body,
            reply=reply,
            refusal=refusal_of,
        )
        async with aclosing(events):
            async for event in events:
                yield event

    def forward(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> AsyncGenerator[bytes]:
        def call(place: Place) -> AsyncGenerator[bytes]:
            return self._forward(place, body, betas)

        return self._places.first(model, call, begun=bool)

    async def _forward(
        self, place: Place, body: Mapping[str, Any], betas: str
    ) -> AsyncGenerator[bytes]:
        stream, base = bool(body.get("stream")), self._base_in(place)
        if self._mantle:
            url = f"{base}/v1/messages"
            sent = {**body, "model": self._plain(place.model)}
            given = {"Content-Type": "application/json", "anthropic-version": VERSION}
            given |= {"anthropic-beta": betas} if betas else {}
        else:
            action = "invoke-with-response-stream" if stream else "invoke"
            url = f"{base}/model/{quote(place.model, safe='')}/{action}"
            sent = {"anthropic_version": ANTHROPIC_VERSION, **without_stream(body)}
            if betas:
                sent["anthropic_beta"] = beta_list(betas)
            given = {"Content-Type": "application/json", "Accept": _ACCEPTED[stream]}
        wire = orjson.dumps(sent)
        answer = exchange(
            self._http,
            url,
            setting=self._setting,
            headers=await self._authorized(place, url, given, wire),
            body=wire,
            stream=stream,
            refusal=refusal_of,
        )
        framed = stream and not self._mantle
        async with aclosing(unframed(answer) if framed else answer) as parts:
            async for part in parts:
                yield part

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
