"""One-time passwords by time (RFC 6238), as authenticator apps know them.

HMAC-SHA-1, six digits, thirty seconds: some apps ignore what an address says else.
"""

import base64
import hmac
import secrets
import struct
import time
from urllib.parse import quote, urlencode

DIGITS = 6
STEP = 30  # seconds
_DRIFT = 1  # steps by which a phone's clock may be off, either way


def new_secret() -> str:
    """160 random bits in base32, as RFC 4226 recommends."""
    return base64.b32encode(secrets.token_bytes(20)).decode()


def code(secret: str, step: int) -> str:
    """The code of a time step (RFC 4226, section 5.3)."""
    digest = hmac.digest(base64.b32decode(secret), struct.pack(">Q", step), "sha1")
    offset = digest[-1] & 0xF
    (number,) = struct.unpack(">I", digest[offset : offset + 4])
    return str((number & 0x7FFFFFFF) % 10**DIGITS).zfill(DIGITS)


def matching_step(secret: str, given: str, *, after: int) -> int | None:
    """The time step about now, but `after` that one, whose code was given."""
    now = int(time.time()) // STEP
    for step in range(now - _DRIFT, now + _DRIFT + 1):
        right = hmac.compare_digest(code(secret, step).encode(), given.encode())
        if right and step > after:
            return step
    return None


def uri(secret: str, *, issuer: str, label: str) -> str:
    """The address that a QR code holds (Google Authenticator's Key URI Format)."""
    query = urlencode({"secret": secret, "issuer": issuer}, quote_via=quote)
    return f"otpauth://totp/{quote(issuer)}:{quote(label)}?{query}"
