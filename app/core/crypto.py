"""Text that only an installation's own keys open: what sensitive columns hold.

Fernet (AES-128-CBC and HMAC-SHA256) under ENCRYPTION_KEY. Its first key seals, all of
them open, so keys are replaced without a moment at which old rows cannot be read. The
place of a text is sealed with it: moved to another row or column, it does not open.
"""

import base64
import hashlib
import hmac

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from app.core.config import SecuritySettings

_AFTER_PLACE = "\0"  # no place holds it


class CryptoError(Exception):
    """A sealed text that does not open here; says nothing of what it holds."""


class Crypto:
    """`place` is `table.column:<row id>`, where the sealed text is stored."""

    def __init__(self, settings: SecuritySettings) -> None:
        keys = _keys(settings)
        self._newest = Fernet(keys[0])
        self._all = MultiFernet([Fernet(key) for key in keys])

    def seal(self, text: str, *, place: str) -> str:
        bound = f"{place}{_AFTER_PLACE}{text}".encode()
        return self._newest.encrypt(bound).decode()

    def open(self, sealed: str, *, place: str) -> str:
        """Raises CryptoError for a key that is not ours, a change, another place."""
        try:
            bound = self._all.decrypt(sealed.encode()).decode()
        except InvalidToken as error:
            raise CryptoError(
                f"{place} does not open with the keys in ENCRYPTION_KEY: it was "
                "changed, or the key that sealed it is missing there"
            ) from error
        sealed_for, _, text = bound.partition(_AFTER_PLACE)
        if not hmac.compare_digest(sealed_for.encode(), place.encode()):
            raise CryptoError(f"{place} holds what was sealed for {sealed_for}")
        return text

    def is_newest(self, sealed: str) -> bool:
        """Whether it is sealed with the first key."""
        try:
            self._newest.extract_timestamp(sealed.encode())
        except InvalidToken:
            return False
        return True


def _keys(settings: SecuritySettings) -> list[str]:
    """Newest first; development may do without, and gets one from SECRET_KEY."""
    if settings.encryption_key is not None:
        keys = settings.encryption_key.get_secret_value().split(",")
        return [key.strip() for key in keys]
    secret = settings.secret_key.get_secret_value().encode()
    derived = hmac.digest(secret, b"workroom v1: encryption", hashlib.sha256)
    return [base64.urlsafe_b64encode(derived).decode()]
