"""AWS Bedrock: Claude by either of Bedrock's two endpoints, embeddings, reranking.

`runtime` sends its events inside AWS event-stream frames (reference:
`InvokeModelWithResponseStream` in Amazon Bedrock's API reference). `mantle` is newer
and sends them as Anthropic does, as server-sent events (reference: "Inference using
Anthropic Messages API" in the user guide); it knows models by their plain ids, without
inference profiles, and none for embeddings or reranking. botocore signs, but takes no
part in the transport.
"""

import asyncio
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
from app.integrations.llm import bedrock_embeddings, bedrock_reranking
from app.integrations.llm.answers import ask, readable
from app.integrations.llm.base import (
    ChatRequest,
    ModelInfo,
    ProviderAuthError,
    ProviderEvent,
    ProviderNotConfiguredError,
    ProviderRejectedError,
    Usage,
    is_answer,
    joined,
)
from app.integrations.llm.bedrock_betas import Betas
from app.integrations.llm.bedrock_credentials import found, signed
from app.integrations.llm.bedrock_places import (
    HOME_PROFILES,
    Place,
    Places,
)
from app.integrations.llm.bedrock_wire import (
    ANTHROPIC_VERSION,
    WHO,
    event_of,
    refusal_of,
    runtime_body,
    unframed,
)
from app.integrations.llm.catalogue import Catalogue, base_name
from app.integrations.llm.embeddings import Embedded, EmbedRequest
from app.integrations.llm.eventstream import EventStreamReader
from app.integrations.llm.forwarding import Outgoing, Spoken, parts_of, whole_of
from app.integrations.llm.http import (
    Http,
    body_of,
    drain,
    refused,
)
from app.integrations.llm.messages_api import MessagesReader, countable, message_body
from app.integrations.llm.messages_sse import VERSION, stream_messages
from app.integrations.llm.reranking import Reranked, RerankRequest
from app.integrations.llm.tokens import estimate_body

log = structlog.get_logger(__name__)


CHAIN_SECONDS = 60.0
"""How long it is believed that AWS's credential chain has nothing."""

_SERVICES = {"runtime": "bedrock", "mantle": "bedrock-mantle"}
"""What a signature names, by endpoint."""

_ACCEPTED = {True: "application/vnd.amazon.eventstream", False: "application/json"}
"""Of an answer that is streamed, and of one that is not."""
_JSON = {"Content-Type": "application/json", "Accept": _ACCEPTED[False]}
_VERSIONED = re.compile(r"-v\d+(?:-\d+)?(?::\d+)?$")


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
        self._betas = Betas()
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
        url = self._url(place, "invoke-with-response-stream")
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
        url = self._url(place, "messages")
        given = _mantle_headers()
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
            if not betas:
                return self._forward(place, body, "")
            return self._betas.tried(
                place.model, betas, lambda taken: self._forward(place, body, taken)
            )

        return self._places.first(model, call, begun=bool)

    async def forward_whole(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> bytes:
        async with aclosing(self.forward(model, body, betas=betas)) as answer:
            return await anext(answer)

    async def _forward(
        self, place: Place, body: Mapping[str, Any], betas: str
    ) -> AsyncGenerator[bytes]:
        stream = bool(body.get("stream"))
        if self._mantle:
            url = self._url(place, "messages")
            message = {**body, "model": self._plain(place.model)}
            given = _mantle_headers(betas)
        else:
            action = "invoke-with-response-stream" if stream else "invoke"
            url = self._url(place, action)
            message = runtime_body(body, betas)
            given = {"Content-Type": "application/json", "Accept": _ACCEPTED[stream]}
        wire = orjson.dumps(message)
        headers = await self._authorized(place, url, given, wire)
        sent = Outgoing(url, self._setting, headers, wire, refusal_of)
        if not stream:
            yield await whole_of(self._http, sent)
            return
        answer = parts_of(self._http, sent)
        async with aclosing(answer if self._mantle else unframed(answer)) as parts:
            async for part in parts:
                yield part

    def most_inputs(self, model: str) -> int:
        return bedrock_embeddings.most_inputs(model)

    async def embed(self, request: EmbedRequest) -> Embedded:
        self._refuse_mantle("embeddings")
        asked = bedrock_embeddings.body_of(request)
        answer, headers = await self._ask(request.model, "invoke", asked)
        with readable(WHO):
            return bedrock_embeddings.read(request, answer, headers)

    def rerank_tokens(self, request: RerankRequest) -> int:
        return bedrock_reranking.billed(request)

    async def rerank(self, request: RerankRequest) -> Reranked:
        self._refuse_mantle("reranking")
        asked = bedrock_reranking.body_of(request)
        answer, _ = await self._ask(request.model, "invoke", asked)
        with readable(WHO):
            return bedrock_reranking.read(request, answer)

    def _refuse_mantle(self, purpose: str) -> None:
        if self._mantle:
            raise ProviderNotConfiguredError(
                f"Bedrock's Mantle endpoint has no models for {purpose}: set "
                "BEDROCK_ENDPOINT=runtime."
            )

    async def count_body(
        self, model: str, body: Mapping[str, Any], *, betas: str = ""
    ) -> Usage:
        """Our estimate where AWS does not count: that takes a permission of its own."""
        count = self._count_by_mantle if self._mantle else self._count_by_runtime
        try:
            return Usage(await count(model, body, self._betas.taken(model, betas)), 0)
        except (ProviderRejectedError, ProviderAuthError) as error:
            try:
                return Usage(estimate_body(body), 0, estimated=True)
            except (KeyError, TypeError, AttributeError):
                raise error from None

    async def _count_by_runtime(
        self, model: str, body: Mapping[str, Any], betas: str
    ) -> int:
        """It counts for some of the models, and knows them by their plain ids."""
        longest = self._catalogue.info(f"{self.name}/{model}").max_output_tokens
        # A call must say how long its answer may be, though that counts for nothing.
        wire = orjson.dumps(runtime_body({"max_tokens": longest, **body}, betas))
        asked = {"input": {"invokeModel": {"body": b64encode(wire).decode()}}}
        answer, _ = await self._ask(self._plain(model), "count-tokens", asked)
        with readable(WHO):
            return int(answer["inputTokens"])

    async def _count_by_mantle(
        self, model: str, body: Mapping[str, Any], betas: str
    ) -> int:
        plain, action = self._plain(model), "messages/count_tokens"
        asked = {**countable(body), "model": plain}
        answer, _ = await self._ask(plain, action, asked, _mantle_headers(betas))
        with readable(WHO):
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
            g for start, g in HOME_PROFILES.items() if region.startswith(start)
        )
        profile = next(geographies, "global")
        return [
            name
            if bedrock_embeddings.lacks_profile(name) or bedrock_reranking.knows(name)
            else name.replace("/", f"/{profile}.", 1)
            for name in names
        ]

    async def _ask(
        self,
        model: str,
        action: str,
        asked: Mapping[str, Any],
        headers: Mapping[str, str] = _JSON,
    ) -> tuple[Any, Mapping[str, str]]:
        """What a whole answer holds, and its headers."""
        body = orjson.dumps(asked)

        async def call(place: Place) -> AsyncGenerator[tuple[Any, Mapping[str, str]]]:
            url = self._url(place, action)
            yield await ask(
                self._http,
                url,
                who=WHO,
                setting=self._setting,
                headers=await self._authorized(place, url, dict(headers), body),
                body=body,
                refusal=refusal_of,
            )

        [answer] = [one async for one in self._places.first(model, call, begun=bool)]
        return answer

    def _url(self, place: Place, action: str) -> str:
        base = self._address.replace("{region}", place.region)
        if self._mantle:
            return f"{base}/v1/{action}"
        return f"{base}/model/{quote(place.model, safe='')}/{action}"

    async def _authorized(
        self, place: Place, url: str, headers: dict[str, str], body: bytes
    ) -> Mapping[str, str]:
        if not self._settings.aws_region or not await self._ready():
            raise ProviderNotConfiguredError(str(self.missing))
        if key := self._settings.bedrock_api_key:
            return {**headers, "Authorization": f"Bearer {key.get_secret_value()}"}
        scope = (place.region, _SERVICES[self._settings.bedrock_endpoint])
        return signed(await self._current(), scope, url, headers, body)

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
            self._credentials = await asyncio.to_thread(found, self._settings)
            self._looked_until = time.monotonic() + CHAIN_SECONDS

    async def _current(self) -> Any:
        """Credentials for one signature; a role's are renewed by botocore, in time."""
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - loaded by `found`

        try:
            if hasattr(self._credentials, "refresh_needed"):
                return await asyncio.to_thread(self._credentials.get_frozen_credentials)
            return self._credentials.get_frozen_credentials()
        except BotoCoreError as error:
            raise refused(
                ProviderAuthError, "AWS", type(error).__name__, str(error)
            ) from error


def _mantle_headers(betas: str = "") -> dict[str, str]:
    headers = {"Content-Type": "application/json", "anthropic-version": VERSION}
    return headers | ({"anthropic-beta": betas} if betas else {})
