"""How API keys look: `wr_<12 characters>_<32 secret ones><6 of a checksum>`, base 62.

The first part names a key in lists and logs. The checksum (CRC-32, as in GitHub's
tokens) is no secret: it tells an invented or mistyped key from one that may exist
without asking the database, and lets scanners find keys that have leaked.
"""

import re
import secrets
import string
import zlib
from enum import StrEnum

_DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
_NAMED = 12
_SECRET = 32  # 190 random bits
_CHECKSUM = 6
_KEY = re.compile(
    rf"(wrs?)_[0-9A-Za-z]{{{_NAMED}}}_[0-9A-Za-z]{{{_SECRET + _CHECKSUM}}}"
)


class KeyKind(StrEnum):
    """What a key begins with: one kind is never taken for the other."""

    USER = "wr"
    SERVICE = "wrs"


_BEGINNINGS = tuple(f"{kind}_" for kind in KeyKind)


def new_key(kind: KeyKind) -> str:
    named, secret = (_random(length) for length in (_NAMED, _SECRET))
    body = f"{kind}_{named}_{secret}"
    return body + _checksum(body)


def kind_of(text: str) -> KeyKind | None:
    """The kind of a key that may exist; None is no key."""
    match = _KEY.fullmatch(text)
    if match is None or _checksum(text[:-_CHECKSUM]) != text[-_CHECKSUM:]:
        return None
    return KeyKind(match[1])


def prefix_of(key: str) -> str:
    """The part that may be shown."""
    return key.rpartition("_")[0]


def looks_like_key(text: str) -> bool:
    """Whether it was meant as one, right or wrong."""
    return text.startswith(_BEGINNINGS)


def _random(length: int) -> str:
    return "".join(secrets.choice(_DIGITS) for _ in range(length))


def _checksum(body: str) -> str:
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(_CHECKSUM):
        number, digit = divmod(number, len(_DIGITS))
        digits = _DIGITS[digit] + digits
    return digits
