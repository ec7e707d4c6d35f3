"""What no single field can tell: a function for each area that has such rules."""

import re
from collections.abc import Iterator

from app.core.config.database import DRIVERS
from app.core.config.settings import Settings


def broken_rules(settings: Settings) -> list[str]:
    """A line for each, which names the variable and the mend."""
    return [
        *_server(settings),
        *_database(settings),
        *_security(settings),
        *_login(settings),
        *_desk(settings),
        *_cors(settings),
        *_mail(settings),
        *_models(settings),
        *_storage(settings),
    ]


def _server(settings: Settings) -> Iterator[str]:
    server = settings.server
    if server.public_url and not server.public_url.startswith(("http://", "https://")):
        yield "PUBLIC_URL: begin it with https:// or http://"
    if server.production and server.debug:
        yield "DEBUG: must be false in production"
    if server.production and "*" in server.allowed_hosts:
        yield "ALLOWED_HOSTS: name the hosts that people use, not *"


def _database(settings: Settings) -> Iterator[str]:
    if not settings.database_url.startswith(tuple(DRIVERS.values())):
        yield "DATABASE_URL: use sqlite:///path or postgresql://user:password@host/name"


def _security(settings: Settings) -> Iterator[str]:
    environment = settings.server.environment
    if environment == "development":
        return
    key = settings.security.secret_key.get_secret_value()
    if len(key) < 32 or len(set(key)) < 10:  # noqa: PLR2004 - 32 characters, not one repeated
        yield (
            f"SECRET_KEY: is too short or too simple for {environment}: set at least "
            "32 random characters (`python -m app keys generate`)"
        )
    if settings.security.encryption_key is None:
        yield "ENCRYPTION_KEY: is not set: `python -m app keys generate` makes one"


def _login(settings: Settings) -> Iterator[str]:
    login = settings.login
    providers = login.identity_providers
    names = [provider.name for provider in providers]
    if len(set(names)) < len(names):
        yield "OIDC_PROVIDERS: has google, as GOOGLE_CLIENT_ID has: keep one of them"
    for provider in providers:
        if not provider.is_safe:
            variable = (
                "GOOGLE_ISSUER" if provider.name == "google" else "OIDC_PROVIDERS"
            )
            yield f"{variable}: {provider.issuer} must begin with https://"
    page = login.oidc_return_url
    if page and not page.startswith(("https://", "http://")):
        yield "OIDC_RETURN_URL: begin it with https:// or http://"


def _desk(settings: Settings) -> Iterator[str]:
    desk = settings.desk
    if desk.admin_email and not desk.admin_password:
        yield "ADMIN_PASSWORD: is not set: it goes with ADMIN_EMAIL"
    if desk.admin_password and not desk.admin_email:
        yield "ADMIN_EMAIL: is not set: it goes with ADMIN_PASSWORD"


def _cors(settings: Settings) -> Iterator[str]:
    origins = settings.cors.origins
    if "*" in origins and settings.cors.credentials:
        yield "CORS_ORIGINS: * is never allowed with CORS_CREDENTIALS: name the origins"
    if any(origin != "*" and not _is_origin(origin) for origin in origins):
        yield "CORS_ORIGINS: write each as scheme://host[:port], without a path"
    if "*" in origins and settings.server.environment != "development":
        yield "CORS_ORIGINS: name exact origins, not *"


def _mail(settings: Settings) -> Iterator[str]:
    mail = settings.mail
    if mail.smtp_host and not mail.mail_from:
        yield "MAIL_FROM: is not set: write it as Workroom <no-reply@example.com>"
    if bool(mail.smtp_username) != bool(mail.smtp_password):
        yield "SMTP_PASSWORD: set it and SMTP_USERNAME, or neither"
    if mail.smtp_username and mail.smtp_security == "none":
        yield "SMTP_SECURITY: none would send the password in clear: use starttls"


def _models(settings: Settings) -> Iterator[str]:
    models = settings.models
    address = models.bedrock_base_url
    if models.bedrock_fallback_regions and address and "{region}" not in address:
        yield (
            "BEDROCK_BASE_URL: is an address for one region: write {region} where the "
            "region's name belongs in it, or unset BEDROCK_FALLBACK_REGIONS"
        )


def _is_origin(value: str) -> bool:
    return re.fullmatch(r"https?://[^\s/?#@]+", value) is not None


def _storage(settings: Settings) -> Iterator[str]:
    storage = settings.storage
    if storage.storage == "s3" and not storage.s3_bucket:
        yield "S3_BUCKET: is not set: name the bucket for files, as STORAGE is s3"
    if storage.s3_endpoint_url and not storage.s3_endpoint_url.startswith(
        ("http://", "https://")
    ):
        yield "S3_ENDPOINT_URL: begin it with https:// or http://"
    if bool(storage.s3_access_key_id) != bool(storage.s3_secret_access_key):
        yield "S3_ACCESS_KEY_ID: set S3_SECRET_ACCESS_KEY along with it"
