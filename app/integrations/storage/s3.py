"""Files in a bucket of S3, or of a server that speaks its API.

Reference: "Authenticating Requests: Using Query Parameters (AWS Signature Version 4)"
in Amazon's S3 API reference, for addresses that anybody can read from. An upload that
broke off with its process is the bucket's to forget: see docs/guides/files.md.
"""

import asyncio
from datetime import timedelta
from typing import Any
from urllib.parse import quote, urlencode

from app.core.config import StorageSettings
from app.core.database import utcnow
from app.integrations.storage.base import StorageError
from app.integrations.storage.objects import ObjectStorage

_ASKED_AGAIN = timedelta(minutes=5)


class S3Storage(ObjectStorage):
    def __init__(self, settings: StorageSettings) -> None:
        super().__init__()
        self._settings = settings
        self._credentials: Any = None

    def _open(self) -> Any:
        from obstore.store import S3Store  # noqa: PLC0415 - see `_store`

        settings = self._settings
        self._credentials = _credentials(settings)
        return S3Store(
            settings.s3_bucket,
            region=settings.s3_region,
            endpoint=settings.s3_endpoint,
            virtual_hosted_style_request=False,
            client_options={"allow_http": True},
            credential_provider=self._frozen,  # type: ignore[arg-type]  # its stub wants the class of a provider
        )

    def _frozen(self) -> dict[str, Any]:
        """The credentials of the moment, as obstore wants them."""
        now = self._credentials.get_frozen_credentials()
        return {
            "access_key_id": now.access_key,
            "secret_access_key": now.secret_key,
            "token": now.token,
            # Asked again then: those of a machine's role change from time to time.
            "expires_at": utcnow() + _ASKED_AGAIN,
        }

    async def url(self, key: str, *, disposition: str, seconds: int) -> str | None:
        await self._store()
        return await asyncio.to_thread(
            self._signed, key, disposition=disposition, seconds=seconds
        )

    def _signed(self, key: str, *, disposition: str, seconds: int) -> str:
        from botocore.auth import S3SigV4QueryAuth  # noqa: PLC0415 - loaded by `_open`
        from botocore.awsrequest import AWSRequest  # noqa: PLC0415 - loaded by `_open`

        settings = self._settings
        # What S3 then answers with: never the type that a browser would open.
        answered = {
            "response-content-disposition": disposition,
            "response-content-type": "application/octet-stream",
        }
        address = f"{settings.s3_endpoint}/{settings.s3_bucket}/{quote(key)}"
        request = AWSRequest("GET", f"{address}?{urlencode(answered, quote_via=quote)}")
        S3SigV4QueryAuth(
            self._credentials, "s3", settings.s3_region, expires=seconds
        ).add_auth(request)
        return str(request.url)


def _credentials(settings: StorageSettings) -> Any:
    """Those of the settings, else from AWS's own chain; raises StorageError."""
    # 9 MB that an installation without S3 never pays.
    from botocore.credentials import Credentials  # noqa: PLC0415 - see above
    from botocore.session import Session  # noqa: PLC0415 - see above

    if settings.s3_access_key_id and settings.s3_secret_access_key:
        secret = settings.s3_secret_access_key.get_secret_value()
        return Credentials(settings.s3_access_key_id, secret)
    found = Session().get_credentials()
    if found is None:
        raise StorageError("No credentials for S3 were found.")
    return found
