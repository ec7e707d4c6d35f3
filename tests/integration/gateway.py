"""The gateway as its clients see it: an address, a key and the name of a model."""

import base64
from dataclasses import dataclass
from typing import Any

from anthropic import Anthropic, AsyncAnthropic
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.conftest import Server
from tests.fakes.model_server import FakeServer
from tests.integration.providers import MODELS

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
    key: str

    @classmethod
    async def opened(cls, server: Server, provider: str, fake: FakeServer) -> "Gateway":
        owner = await server.client()
        answer = await owner.post("/apikeys", json={"name": "a script"})
        return cls(server, provider, fake, answer.json["key"])

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

    @property
    def sent(self) -> Any:
        """The body that the provider got last."""
        return self.fake.calls[-1].body

    # Each client once tries only, where it is not told otherwise.

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
