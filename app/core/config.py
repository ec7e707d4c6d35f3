"""Settings: the only reader of the environment.

A value comes from, the first that has it: the environment, a file named by
`<NAME>_FILE` (secrets), `.env.{ENVIRONMENT}`, `.env`, the default written here.
The `.env` files are looked for in the working directory.
"""

import base64
import binascii
import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from dotenv import dotenv_values
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
)
from pydantic.fields import FieldInfo

from app.core import rates

ROOT = Path(__file__).resolve().parents[2]
"""The checkout: where `docs/` and `alembic/` are."""

Environment = Literal["development", "staging", "production"]


class ConfigError(Exception):
    """Settings that cannot work; each line names a variable and the mend."""


def _split(value: Any) -> Any:
    if isinstance(value, str):
        return tuple(part for part in (p.strip() for p in value.split(",")) if part)
    return value


def _fernet_keys(keys: SecretStr | None) -> SecretStr | None:
    for key in keys.get_secret_value().split(",") if keys else ():
        try:
            good = len(base64.urlsafe_b64decode(key.strip())) == 32  # noqa: PLR2004 - a Fernet key
        except (binascii.Error, ValueError):
            good = False
        if not good:
            raise ValueError(
                "needs keys of 32 bytes in URL-safe base64: make one with "
                "`python -m app keys generate`"
            )
    return keys


def _networks(ranges: tuple[str, ...]) -> tuple[str, ...]:
    for one in ranges:
        try:
            ipaddress.ip_network(one, strict=False)
        except ValueError:
            raise ValueError(
                f"{one} is no address or CIDR range, such as 10.0.0.0/8"
            ) from None
    return ranges


def _rate_limits(text: str) -> str:
    rates.parse(text)
    return text


List = Annotated[tuple[str, ...], BeforeValidator(_split)]


class Group(BaseModel):
    """One area of settings; a field's alias is the name of its variable."""

    model_config = ConfigDict(
        frozen=True, extra="ignore", populate_by_name=True, allow_inf_nan=False
    )


class ServerSettings(Group):
    environment: Environment = Field(
        "development",
        alias="ENVIRONMENT",
        description="development, staging or production; the last two are strict.",
    )
    debug: bool = Field(
        False, alias="DEBUG", description="Log at level DEBUG. Refused in production."
    )
    app_name: str = Field(
        "Workroom", alias="APP_NAME", description="The name that people see."
    )
    host: str = Field(
        "127.0.0.1", alias="HOST", description="The address to listen on."
    )
    port: int = Field(
        8000, alias="PORT", ge=1, le=65535, description="The port to listen on."
    )
    data_dir: Path = Field(
        Path("data"),
        alias="DATA_DIR",
        description="Folder for the embedded database and everything else on disk.",
    )
    public_url: str = Field(
        "",
        alias="PUBLIC_URL",
        description="The address people use, for links; by default http://HOST:PORT.",
    )
    docs_enabled: bool | None = Field(
        None,
        alias="DOCS_ENABLED",
        description="Serve /docs, /redoc and /openapi.json; by default not in "
        "production.",
    )
    allowed_hosts: List = Field(
        ("*",),
        alias="ALLOWED_HOSTS",
        description="Host names answered to, comma separated; production needs them.",
    )
    trusted_proxies: Annotated[List, AfterValidator(_networks)] = Field(
        (),
        alias="TRUSTED_PROXIES",
        description="Addresses or CIDR ranges whose X-Forwarded-* headers count.",
    )
    https_redirect: bool | None = Field(
        None,
        alias="HTTPS_REDIRECT",
        description="Redirect http to https and send HSTS; by default in production.",
    )
    shutdown_seconds: float = Field(
        20,
        alias="SHUTDOWN_SECONDS",
        ge=0,
        description="On SIGTERM, how long running replies may take to end.",
    )
    metrics_token: SecretStr | None = Field(
        None,
        alias="METRICS_TOKEN",
        description="Bearer token for /metrics; without it only loopback may read it.",
    )

    @property
    def production(self) -> bool:
        return self.environment == "production"

    @property
    def shows_docs(self) -> bool:
        return not self.production if self.docs_enabled is None else self.docs_enabled

    @property
    def redirects_to_https(self) -> bool:
        return self.production if self.https_redirect is None else self.https_redirect

    @property
    def url(self) -> str:
        return self.public_url.rstrip("/") or f"http://{self.reachable}:{self.port}"

    @property
    def reachable(self) -> str:
        """HOST as a part of an address; "any address" is no address to go to."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self.host, self.host)  # noqa: S104 - read, not bound
        return f"[{host}]" if ":" in host else host


class DatabaseSettings(Group):
    url_setting: SecretStr | None = Field(
        None,
        alias="DATABASE_URL",
        description="sqlite:///path or postgresql://user:password@host/name; by "
        "default SQLite in DATA_DIR.",
    )
    pool_size: int = Field(
        10,
        alias="DB_POOL_SIZE",
        ge=1,
        description="Connections kept open; the busiest statements have as many of "
        "their own.",
    )
    max_overflow: int = Field(
        10, alias="DB_MAX_OVERFLOW", ge=0, description="Connections beyond these."
    )
    pool_timeout: float = Field(
        10,
        alias="DB_POOL_TIMEOUT",
        gt=0,
        description="Seconds to wait for a connection before a 503.",
    )


class RedisSettings(Group):
    url: SecretStr | None = Field(
        None,
        alias="REDIS_URL",
        description="redis://host:6379/0. Several server processes need it, to tell "
        "each other of replies and of ended sessions.",
    )


class LimitSettings(Group):
    rate_limits: Annotated[str, AfterValidator(_rate_limits)] = Field(
        "",
        alias="RATE_LIMITS",
        description="How often one may ask, beyond it 429: for some of these names "
        "another limit, such as 10/minute, 100/15 minutes or off. "
        + "; ".join(
            f"{name} ({rates.DEFAULT[name]}): {what}"
            for name, what in rates.LIMITED.items()
        )
        + ".",
    )
    max_requests: int = Field(
        300,
        alias="MAX_CONCURRENT_REQUESTS",
        ge=1,
        description="Requests in progress at once in a process, streams not counted "
        "once they have begun; beyond it 503.",
    )
    max_loop_lag: float = Field(
        0.25,
        alias="MAX_LOOP_LAG_SECONDS",
        gt=0,
        description="A process that stays later than this with its work answers new "
        "requests with 503.",
    )
    max_body_bytes: int = Field(
        2 * 2**20,
        alias="MAX_BODY_BYTES",
        ge=1024,
        description="Largest request body, in bytes; beyond it 413.",
    )
    body_seconds: float = Field(
        20,
        alias="BODY_SECONDS",
        gt=0,
        description="How long the head of a request may take to arrive, and then its "
        "body, which gets a second more for each 16 KiB; beyond it 408.",
    )

    @property
    def rates(self) -> dict[str, rates.Rate | None]:
        """The limit of every name; None is no limit."""
        return rates.complete(self.rate_limits)


class SecuritySettings(Group):
    secret_key: SecretStr = Field(
        alias="SECRET_KEY",
        description="Signs tokens; at least 32 characters. Changing it ends every "
        "session.",
    )
    encryption_key: Annotated[SecretStr | None, AfterValidator(_fernet_keys)] = Field(
        None,
        alias="ENCRYPTION_KEY",
        description="Fernet keys, comma separated, newest first, for columns "
        "encrypted at rest.",
    )
    access_token_minutes: float = Field(
        30, alias="ACCESS_TOKEN_MINUTES", gt=0, description="Life of an access token."
    )
    refresh_token_days: float = Field(
        7,
        alias="REFRESH_TOKEN_DAYS",
        gt=0,
        description="Life of a session, however often it is refreshed.",
    )
    refresh_grace_seconds: float = Field(
        10,
        alias="REFRESH_GRACE_SECONDS",
        ge=0,
        description="How long a used refresh token may be used again by a client "
        "that lost the answer.",
    )
    password_scheme: Literal["bcrypt", "argon2id"] = Field(
        "bcrypt", alias="PASSWORD_SCHEME", description="bcrypt or argon2id."
    )
    bcrypt_rounds: int = Field(
        12, alias="BCRYPT_ROUNDS", ge=4, le=20, description="Cost of a bcrypt hash."
    )


class CorsSettings(Group):
    origins: List = Field(
        (),
        alias="CORS_ORIGINS",
        description="Origins of other sites that may call the API, comma separated.",
    )
    methods: List = Field(
        ("GET", "POST", "PUT", "PATCH", "DELETE"),
        alias="CORS_METHODS",
        description="Methods they may use.",
    )
    headers: List = Field(
        ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"),
        alias="CORS_HEADERS",
        description="Request headers they may send.",
    )
    credentials: bool = Field(
        False,
        alias="CORS_CREDENTIALS",
        description="Whether they may send cookies; never with the origin *.",
    )


class LogSettings(Group):
    enabled: bool = Field(
        True, alias="ENABLE_LOGGING", description="Write a line for every request."
    )
    timing: bool = Field(
        True,
        alias="ENABLE_TIMING",
        description="Send a Server-Timing header with every answer.",
    )
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="LOG_LEVEL", description="DEBUG, INFO, WARNING or ERROR."
    )
    format: Literal["json", "console"] = Field(
        "json", alias="LOG_FORMAT", description="json or console."
    )
    file: Path | None = Field(
        None, alias="LOG_FILE", description="Write the log there too."
    )

    shared_metrics: str = Field(
        "",
        alias="PROMETHEUS_MULTIPROC_DIR",
        description="Folder in which several processes count together; "
        "`serve --workers` sets it.",
    )


class ModelSettings(Group):
    default: str = Field(
        "",
        alias="DEFAULT_MODEL",
        description="provider/id used where a chat names none; by default the first "
        "that is available.",
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
        description="Another address than the region's own, such as a VPC endpoint.",
    )
    bedrock_models: List = Field(
        (),
        alias="BEDROCK_MODELS",
        description="Bedrock model or inference profile ids to offer besides the "
        "catalogue's, comma separated.",
    )


class TurnSettings(Group):
    checkpoint_seconds: float = Field(
        1,
        alias="TURN_CHECKPOINT_SECONDS",
        gt=0,
        description="How often a running reply's text is saved.",
    )
    lease_seconds: float = Field(
        10,
        alias="TURN_LEASE_SECONDS",
        gt=0,
        description="A running reply not saved for so long counts as interrupted.",
    )
    keepalive_seconds: float = Field(
        15,
        alias="KEEPALIVE_SECONDS",
        gt=0,
        description="How often a quiet stream sends a comment line.",
    )
    max_running: int = Field(
        200,
        alias="MAX_RUNNING_TURNS",
        ge=1,
        description="Replies running at once in a process; beyond it 503.",
    )
    max_running_per_user: int = Field(
        100,
        alias="MAX_RUNNING_TURNS_PER_USER",
        ge=1,
        description="Of these, replies of one user; beyond it 429.",
    )


class JobSettings(Group):
    concurrency: int = Field(
        4, alias="JOB_CONCURRENCY", ge=1, description="Background jobs at once."
    )
    poll_seconds: float = Field(
        2,
        alias="JOB_POLL_SECONDS",
        gt=0,
        description="How often the jobs table is looked at when nothing calls.",
    )
    lease_seconds: float = Field(
        60,
        alias="JOB_LEASE_SECONDS",
        gt=0,
        description="A running job without a heartbeat for so long is taken up again.",
    )


GROUPS: dict[str, type[Group]] = {
    "server": ServerSettings,
    "database": DatabaseSettings,
    "redis": RedisSettings,
    "limits": LimitSettings,
    "security": SecuritySettings,
    "cors": CorsSettings,
    "log": LogSettings,
    "models": ModelSettings,
    "turns": TurnSettings,
    "jobs": JobSettings,
}


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings, grouped by area; `sources` tells where each set one came from."""

    server: ServerSettings
    database: DatabaseSettings
    redis: RedisSettings
    limits: LimitSettings
    security: SecuritySettings
    cors: CorsSettings
    log: LogSettings
    models: ModelSettings
    turns: TurnSettings
    jobs: JobSettings
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def database_url(self) -> str:
        """The URL with an async driver, ready for SQLAlchemy."""
        setting = self.database.url_setting
        if setting is None:
            return f"sqlite+aiosqlite:///{self.server.data_dir / 'workroom.db'}"
        url = setting.get_secret_value()
        for plain, driver in _DRIVERS.items():
            if url.startswith(plain):
                return driver + url.removeprefix(plain)
        return url


_DRIVERS = {
    "sqlite:": "sqlite+aiosqlite:",
    "postgresql:": "postgresql+asyncpg:",
    "postgres:": "postgresql+asyncpg:",
}


def variables() -> dict[str, tuple[str, FieldInfo]]:
    """Every setting: variable name to its group's name and its field."""
    return {
        info.alias: (group, info)
        for group, model in GROUPS.items()
        for info in model.model_fields.values()
        if info.alias
    }


def load_settings(
    environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> Settings:
    """Read, merge and validate; raises ConfigError naming every wrong variable."""
    values, sources = _read(os.environ if environ is None else environ, directory)
    groups: dict[str, Any] = {}
    problems: list[str] = []
    for name, model in GROUPS.items():
        try:
            groups[name] = model.model_validate(values)
        except ValidationError as error:
            problems += [_explain(e) for e in error.errors()]
    if not problems:
        settings = Settings(**groups, sources=sources)
        problems = _rules(settings)
        if not problems:
            return settings
    raise ConfigError("\n".join(problems))


def is_first_start(
    environ: Mapping[str, str] | None = None, directory: Path | None = None
) -> bool:
    """Whether keys may be made: development, no `.env`, no SECRET_KEY anywhere."""
    values, _ = _read(os.environ if environ is None else environ, directory)
    return (
        "SECRET_KEY" not in values
        and values.get("ENVIRONMENT", "development") == "development"
        and not os.path.lexists((directory or Path.cwd()) / ".env")
    )


def _read(
    environ: Mapping[str, str], directory: Path | None
) -> tuple[dict[str, str], dict[str, str]]:
    folder = directory or Path.cwd()
    base = _env_file(folder / ".env")
    environment = environ.get("ENVIRONMENT") or base.get("ENVIRONMENT", "development")
    name = f".env.{environment}"
    special = _env_file(folder / name)
    layers = [(".env", base), (name, special), ("environment", dict(environ))]
    values: dict[str, str] = {}
    sources: dict[str, str] = {}
    for source, layer in layers:
        for variable in variables():
            if layer.get(variable):
                values[variable], sources[variable] = layer[variable], source
            elif path := layer.get(f"{variable}_FILE"):
                values[variable] = _secret(variable, path)
                sources[variable] = f"{source}, file {path}"
    return values, sources


def _env_file(path: Path) -> dict[str, str]:
    """Its values, taken literally: a password may hold `${`. No file, no values."""
    try:
        # The signature that Windows editors write must not become part of a name.
        values = dotenv_values(path, interpolate=False, encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{path.name}: cannot be read ({_reason(error)}): make it a text file in "
            "UTF-8 that this user may read"
        ) from error
    return {name: value for name, value in values.items() if value is not None}


def _secret(variable: str, path: str) -> str:
    try:
        value = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{variable}_FILE: cannot read {path} ({_reason(error)}): name a text "
            "file that this user may read"
        ) from error
    if not value:
        raise ConfigError(f"{variable}_FILE: {path} is empty: write the value into it")
    return value


def _reason(error: OSError | UnicodeDecodeError) -> str:
    return str(error.strerror) if isinstance(error, OSError) else "it is not UTF-8"


def _explain(error: Any) -> str:
    variable = str(error["loc"][0])
    if error["type"] == "missing":
        return (
            f"{variable}: is not set: put it into .env "
            "(`python -m app keys generate` prints fresh keys)"
        )
    return f"{variable}: {error['msg'].removeprefix('Value error, ')}"


def _rules(settings: Settings) -> list[str]:
    """What no single field can tell."""
    server, cors = settings.server, settings.cors
    rules = [
        (
            "*" in cors.origins and cors.credentials,
            "CORS_ORIGINS: * is never allowed with CORS_CREDENTIALS: name the origins",
        ),
        (
            any(o != "*" and not _is_origin(o) for o in cors.origins),
            "CORS_ORIGINS: write each as scheme://host[:port], without a path",
        ),
        (
            server.public_url != ""
            and not server.public_url.startswith(("http://", "https://")),
            "PUBLIC_URL: begin it with https:// or http://",
        ),
        (
            not settings.database_url.startswith(tuple(_DRIVERS.values())),
            "DATABASE_URL: use sqlite:///path or postgresql://user:password@host/name",
        ),
    ]
    if server.environment != "development":
        key = settings.security.secret_key.get_secret_value()
        rules += [
            (
                len(key) < 32 or len(set(key)) < 10,  # noqa: PLR2004 - 32 characters, not one repeated
                (
                    "SECRET_KEY: is too short or too simple for "
                    f"{server.environment}: set at least 32 random characters "
                    "(`python -m app keys generate`)"
                ),
            ),
            (
                settings.security.encryption_key is None,
                "ENCRYPTION_KEY: is not set: `python -m app keys generate` makes one",
            ),
            ("*" in cors.origins, "CORS_ORIGINS: name exact origins, not *"),
        ]
    if server.production:
        rules += [
            (server.debug, "DEBUG: must be false in production"),
            (
                "*" in server.allowed_hosts,
                "ALLOWED_HOSTS: name the hosts that people use, not *",
            ),
        ]
    return [message for broken, message in rules if broken]


def _is_origin(value: str) -> bool:
    return re.fullmatch(r"https?://[^\s/?#@]+", value) is not None


def choices(info: FieldInfo) -> tuple[str, ...]:
    """The values a setting may take, where it is one of a few."""
    return tuple(a for a in get_args(info.annotation) if isinstance(a, str))


@lru_cache
def get_settings() -> Settings:
    return load_settings()
