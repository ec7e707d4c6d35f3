"""What can be told of a credential without asking anybody."""

from __future__ import annotations

import hashlib
import re
import string
import zlib
from collections.abc import Mapping

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_KEY = re.compile(r"wr_[0-9A-Za-z]{12}_[0-9A-Za-z]{38}")
_CHECKSUM = 6
_LONGEST = 4096


def sent(authorization: str | None, api_key: str | None) -> str | None:
    """The credential of a request's `Authorization` and `X-API-Key` headers."""
    if authorization:
        scheme, _, token = authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else None
    return api_key or None


def sent_with(headers: Mapping[str, str]) -> str | None:
    """The same of headers whose names are in lower case."""
    return sent(headers.get("authorization"), headers.get("x-api-key"))


def is_key(token: str) -> bool:
    return token.startswith("wr_")


def possible(token: str) -> bool:
    """Whether the token may be one: a key with a wrong checksum never is."""
    if not token or len(token) > _LONGEST or token.startswith("wrs_"):
        return False
    return _has_checksum(token) if is_key(token) else token.isascii()


def cache_key(token: str, client_ip: str | None) -> bytes:
    """What a cache keeps in a token's place.

    A key may be confined to networks, so it is another one from each address.
    """
    place = f"\n{client_ip}" if is_key(token) else ""
    return hashlib.sha256((token + place).encode()).digest()


def _has_checksum(key: str) -> bool:
    if not _KEY.fullmatch(key):
        return False
    number, digits = zlib.crc32(key[:-_CHECKSUM].encode()), ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits == key[-_CHECKSUM:]
