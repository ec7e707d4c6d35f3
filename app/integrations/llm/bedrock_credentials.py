"""AWS's credentials, and signatures with them."""

from collections.abc import Mapping
from typing import Any

import structlog

from app.core.config import ModelSettings

log = structlog.get_logger(__name__)


def found(settings: ModelSettings) -> Any:
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


def signed(
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
    from botocore.auth import SigV4Auth  # noqa: PLC0415 - loaded by `found`
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - loaded by `found`

    request = AWSRequest("POST", url, headers=headers, data=body)
    region, service = scope
    SigV4Auth(credentials, service, region).add_auth(request)
    return dict(request.headers.items())
