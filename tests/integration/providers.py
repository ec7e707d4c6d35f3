"""Every provider that has a fake: a model of it, and the settings that lead to it."""

from collections.abc import Mapping
from typing import Any

from tests.fakes.anthropic import API_KEY as ANTHROPIC_KEY
from tests.fakes.anthropic import FakeAnthropic
from tests.fakes.bedrock import ACCESS_KEY, API_KEY, REGION, SECRET_KEY, FakeBedrock
from tests.fakes.model_server import FakeServer
from tests.fakes.ollama import FakeOllama
from tests.fakes.openai import FakeOpenAI

MODELS = {
    "anthropic": "anthropic/claude-opus-5",
    "bedrock": "bedrock/us.anthropic.claude-opus-5",
    "mantle": "bedrock/anthropic.claude-opus-5",
    "ollama": "ollama/llama3.2:latest",
    "openai": "openai/fake-small",
}
FAKES: Mapping[str, type[FakeServer]] = {
    "anthropic": FakeAnthropic,
    "bedrock": FakeBedrock,
    "mantle": FakeBedrock,
    "ollama": FakeOllama,
    "openai": FakeOpenAI,
}


def variables_for(provider: str, fake: Any) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
    return {
        "anthropic": {
            "ANTHROPIC_BASE_URL": fake.url,
            "ANTHROPIC_API_KEY": ANTHROPIC_KEY,
        },
        "bedrock": {"AWS_REGION": REGION, "BEDROCK_BASE_URL": fake.url, **keys},
        "mantle": {
            "AWS_REGION": REGION,
            "BEDROCK_ENDPOINT": "mantle",
            "BEDROCK_BASE_URL": f"{fake.url}/anthropic",
            "AWS_BEARER_TOKEN_BEDROCK": API_KEY,
        },
        "ollama": {"OLLAMA_BASE_URL": fake.url},
        "openai": {"OPENAI_BASE_URL": f"{fake.url}/v1"},
    }[provider]
