"""The gateway as its clients see it: an address, a key and the name of a model."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletion
from openai.types.responses import Response
from pydantic import BaseModel

from tests.client import Client
from tests.conftest import Server
from tests.fakes.model_server import FakeServer
from tests.integration.providers import MODELS
from tests.integration.wire import Api

NOTHING: Mapping[str, Any] = {}
PIXEL = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
PDF = base64.b64encode(b"%PDF-1.7 " + bytes(40)).decode()
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
    "additionalProperties": False,
}


class Weather(BaseModel):
    """What `SCHEMA` describes."""

    city: str
    days: int

    @classmethod
    def of_bath(cls) -> "Weather":
        return cls(city="Bath", days=3)


@dataclass
class Gateway:
    server: Server
    provider: str
    fake: FakeServer
    owner: Client
    key: str = ""

    @classmethod
    async def opened(cls, server: Server, provider: str, fake: FakeServer) -> "Gateway":
        gateway = cls(server, provider, fake, await server.client())
        gateway.key = (await gateway.new_key())["key"]
        return gateway

    def with_key(self, key: str = "") -> Client:
        """Our own client, which shows what is on the wire."""
        client = self.server.anonymous()
        client.headers["Authorization"] = f"Bearer {key or self.key}"
        return client

    async def new_key(self, **limits: Any) -> dict[str, Any]:
        answer = await self.owner.post("/apikeys", json={"name": "a script", **limits})
        assert answer.status == 201, answer.body
        return dict(answer.json)

    @property
    def model(self) -> str:
        return MODELS[self.provider]

    @property
    def able_model(self) -> str:
        """One that takes images and thinks: Ollama's that calls tools does neither."""
        return "ollama/tiny-vision:1b" if self.provider == "ollama" else self.model

    @property
    def is_claude(self) -> bool:
        return self.provider in {"anthropic", "bedrock", "mantle"}

    def passes(self, api: Api) -> bool:
        """Whether the provider speaks that API, so that bytes go through."""
        if api == "messages":
            return self.is_claude
        return api == "chat" and self.provider == "openai"

    @property
    def sent(self) -> Any:
        """The body that the provider got last."""
        return self.fake.calls[-1].body

    # Each client once tries only, where it is not told otherwise.

    async def ask(
        self, api: Api, text: str, *, client: Mapping[str, Any] = NOTHING, **fields: Any
    ) -> str:
        """A whole answer's text, by the client of that API.

        `client` changes how that is made, `fields` what it asks for.
        """
        messages: Any = [{"role": "user", "content": text}]
        asked: dict[str, Any] = {"model": self.model, **fields}
        if api == "messages":
            async with self.anthropic(**client) as anthropic:
                asked = {"max_tokens": 100, "messages": messages, **asked}
                blocks = (await anthropic.messages.create(**asked)).content
                return "".join(getattr(block, "text", "") for block in blocks)
        async with self.openai(**client) as openai:
            if api == "responses":
                asked = {"input": text, **asked}
                response: Response = await openai.responses.create(**asked)
                return response.output_text
            asked = {"messages": messages, **asked}
            answer: ChatCompletion = await openai.chat.completions.create(**asked)
            return answer.choices[0].message.content or ""

    def openai(self, **options: Any) -> AsyncOpenAI:
        return AsyncOpenAI(**self._openai() | options)

    def sync_openai(self, **options: Any) -> OpenAI:
        return OpenAI(**self._openai() | options)

    def anthropic(self, **options: Any) -> AsyncAnthropic:
        return AsyncAnthropic(**self._anthropic() | options)

    def sync_anthropic(self, **options: Any) -> Anthropic:
        return Anthropic(**self._anthropic() | options)

    def _openai(self) -> dict[str, Any]:
        base = f"{self.server.url}/v1"
        return {"base_url": base, "api_key": self.key, "max_retries": 0}

    def _anthropic(self) -> dict[str, Any]:
        return {"base_url": self.server.url, "api_key": self.key, "max_retries": 0}
