import ipaddress
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from app.core.config.base import Group, List

Environment = Literal["development", "staging", "production"]


def _networks(ranges: tuple[str, ...]) -> tuple[str, ...]:
    for one in ranges:
        try:
            ipaddress.ip_network(one, strict=False)
        except ValueError:
            raise ValueError(
                f"{one} is no address or CIDR range, such as 10.0.0.0/8"
            ) from None
    return ranges


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
