from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr

from app.core.config.base import Group, List


class ModelSettings(Group):
    default: str = Field(
        "",
        alias="DEFAULT_MODEL",
        description="provider/id used where a chat names none; by default the first "
        "that is available.",
    )
    embedding: str = Field(
        "",
        alias="EMBEDDING_MODEL",
        description="provider/id of a model for embeddings, such as "
        "bedrock/amazon.titan-embed-text-v2:0: projects are searched by what passages "
        "mean, too; local/ and a model's id or folder runs that on this machine; "
        "empty: by their words alone.",
    )
    reranking: str = Field(
        "",
        alias="RERANK_MODEL",
        description="provider/id of a model for reranking, such as "
        "bedrock/cohere.rerank-v3-5:0: it orders anew what is found in projects; "
        "empty: nothing does.",
    )
    catalogue: Path | None = Field(
        None,
        alias="MODEL_CATALOGUE",
        description="A TOML file whose entries override and extend our catalogue of "
        "context windows and prices.",
    )
    max_output_tokens: int = Field(
        4096,
        alias="MAX_OUTPUT_TOKENS",
        ge=1,
        le=1_000_000,
        description="Longest reply asked of a model, in tokens.",
    )
    connect_seconds: float = Field(
        10,
        alias="PROVIDER_CONNECT_SECONDS",
        gt=0,
        description="How long a provider may take to accept a connection.",
    )
    stall_seconds: float = Field(
        120,
        alias="PROVIDER_STALL_SECONDS",
        gt=0,
        description="How long a provider may send nothing before the reply fails.",
    )
    retries: int = Field(
        2,
        alias="PROVIDER_RETRIES",
        ge=0,
        le=10,
        description="How often a call that fails before its first token is made again.",
    )
    anthropic_api_key: SecretStr | None = Field(
        None,
        alias="ANTHROPIC_API_KEY",
        description="Key for Claude by Anthropic itself; turns that on.",
    )
    anthropic_base_url: str = Field(
        "",
        alias="ANTHROPIC_BASE_URL",
        description="Another address than Anthropic's own, such as a proxy's.",
    )
    anthropic_models: List = Field(
        (),
        alias="ANTHROPIC_MODELS",
        description="Models on offer there, comma separated; by default all that the "
        "key may use.",
    )
    ollama_base_url: str = Field(
        "http://127.0.0.1:11434",
        alias="OLLAMA_BASE_URL",
        description="Address of Ollama, whose models are on offer when it answers "
        "there; `off` never looks.",
    )
    ollama_context_tokens: int = Field(
        16_384,
        alias="OLLAMA_CONTEXT_TOKENS",
        ge=1024,
        description="Longest context asked of Ollama; a longer one takes more of its "
        "memory.",
    )
    openai_base_url: str = Field(
        "",
        alias="OPENAI_BASE_URL",
        description="Base URL of an OpenAI-compatible server, with its /v1; by "
        "default OpenAI's own where OPENAI_API_KEY is set.",
    )
    openai_api_key: SecretStr | None = Field(
        None, alias="OPENAI_API_KEY", description="Its key; local servers need none."
    )
    openai_models: List = Field(
        (),
        alias="OPENAI_MODELS",
        description="Models on offer there, comma separated; by default those that "
        "the server lists.",
    )
    aws_region: str = Field(
        "",
        alias="AWS_REGION",
        description="Region of AWS Bedrock, such as us-east-1; turns Bedrock on.",
    )
    aws_access_key_id: str = Field(
        "",
        alias="AWS_ACCESS_KEY_ID",
        description="AWS key id; by default AWS's own chain (profile, role).",
    )
    aws_secret_access_key: SecretStr | None = Field(
        None, alias="AWS_SECRET_ACCESS_KEY", description="The AWS key's secret."
    )
    aws_session_token: SecretStr | None = Field(
        None, alias="AWS_SESSION_TOKEN", description="Token of temporary AWS keys."
    )
    bedrock_api_key: SecretStr | None = Field(
        None,
        alias="AWS_BEARER_TOKEN_BEDROCK",
        description="A Bedrock API key, instead of AWS keys.",
    )
    bedrock_endpoint: Literal["runtime", "mantle"] = Field(
        "runtime",
        alias="BEDROCK_ENDPOINT",
        description="runtime, or mantle: Bedrock's newer endpoint, without inference "
        "profiles.",
    )
    bedrock_base_url: str = Field(
        "",
        alias="BEDROCK_BASE_URL",
        description="Another address than the region's own, such as a VPC endpoint; "
        "{region} in it stands for the region.",
    )
    bedrock_fallback_regions: List = Field(
        (),
        alias="BEDROCK_FALLBACK_REGIONS",
        description="Regions in which Bedrock is called where AWS_REGION fails before "
        "the first token, comma separated; prompts go there then.",
    )
    bedrock_global_profiles: bool = Field(
        False,
        alias="BEDROCK_GLOBAL_PROFILES",
        description="Call a model by its global inference profile where the region's "
        "own fails; prompts may then go around the world.",
    )
    bedrock_models: List = Field(
        (),
        alias="BEDROCK_MODELS",
        description="Bedrock model or inference profile ids to offer besides the "
        "catalogue's, comma separated.",
    )
