"""Every provider of models; which of them are set up is for the settings to say."""

from app.core.config import LiveSettings
from app.integrations.llm.anthropic import AnthropicProvider
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.guide import GuideProvider, Manual
from app.integrations.llm.http import Http
from app.integrations.llm.local import LocalProvider
from app.integrations.llm.ollama import OllamaProvider
from app.integrations.llm.openai import OpenAIProvider
from app.integrations.llm.registry import Providers


def connect(live: LiveSettings, catalogue: Catalogue, manual: Manual) -> Providers:
    """Raises ConfigError where a model that is set cannot be there."""
    models = live.started.models
    http = Http(models)
    return Providers(
        live,
        [
            BedrockProvider(models, catalogue, http),
            AnthropicProvider(models, catalogue, http),
            OpenAIProvider(models, catalogue, http),
            OllamaProvider(models, catalogue, http),
            LocalProvider(models, catalogue),
            GuideProvider(manual),
        ],
        catalogue=catalogue,
    )
