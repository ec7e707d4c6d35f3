"""Where the settings say that files are kept."""

from app.core.config import Settings
from app.integrations.storage.base import Storage
from app.integrations.storage.local import LocalStorage
from app.integrations.storage.s3 import S3Storage


def connect(settings: Settings) -> Storage:
    """It is reached for with the first file."""
    if settings.storage.storage == "s3":
        return S3Storage(settings.storage)
    return LocalStorage(settings.server.data_dir / "files")
