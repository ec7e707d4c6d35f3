"""Access tokens (JWT, RFC 7519) and refresh tokens (opaque).

Verification pins everything: algorithm, issuer, audience, type, expiry, and the very
set of header fields, so that no header can bring its own key or rules (RFC 8725).
"""

import hashlib
import hmac
import secrets
import time
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from uuid import UUID

import jwt

from app.core.config import SecuritySettings
from app.core.database import utcnow
from app.core.exceptions import UnauthenticatedError

USER_AUDIENCE = "workroom:user"
ADMIN_AUDIENCE = "workroom:admin"
STAFF_AUDIENCE = "workroom:staff"

_ALGORITHM = "HS256"
_ISSUER = "workroom"
_TYPE = "at+jwt"  # RFC 9068
_REMEMBERED = 4096
_CLAIMS = ["iss", "aud", "exp", "iat", "sub", "sid"]


@dataclass(frozen=True, slots=True)
class AccessClaims:
    account_id: UUID
    session_id: UUID
    expires_at: int
    """Seconds since the epoch."""


class Tokens:
    def __init__(self, settings: SecuritySettings) -> None:
        secret = settings.secret_key.get_secret_value().encode()
        # One secret, a key for each purpose: no token of one kind is another's.
        self._access_key = derive(secret, b"access token")
        self._refresh_key = derive(secret, b"refresh token")
        self._stored_key = derive(secret, b"stored refresh token")
        self.access_life = timedelta(minutes=settings.access_token_minutes)
        # A client sends the same token again and again; its signature stays right.
        self._verified = lru_cache(_REMEMBERED)(self._verify)

    def issue_access(
        self,
        *,
        account_id: UUID,
        session_id: UUID,
        now: datetime,
        audience: str = USER_AUDIENCE,
    ) -> str:
        claims = {
            "iss": _ISSUER,
            "aud": audience,
            "sub": str(account_id),
            "sid": str(session_id),
            "iat": int(now.timestamp()),
            "exp": int((now + self.access_life).timestamp()),
        }
        return jwt.encode(claims, self._access_key, _ALGORITHM, headers={"typ": _TYPE})

    def read_access(self, token: str, audience: str = USER_AUDIENCE) -> AccessClaims:
        """Raises UnauthenticatedError for whatever is not exactly ours and alive."""
        claims = self._verified(token, audience)
        if claims.expires_at <= time.time():
            raise _expired()
        return claims

    def _verify(self, token: str, audience: str) -> AccessClaims:
        try:
            header = jwt.get_unverified_header(token)
            if header != {"alg": _ALGORITHM, "typ": _TYPE}:
                raise UnauthenticatedError("This access token is not valid.")
            claims = jwt.decode(
                token,
                self._access_key,
                algorithms=[_ALGORITHM],
                issuer=_ISSUER,
                audience=audience,
                options={"require": _CLAIMS, "strict_aud": True},
            )
            return AccessClaims(
                account_id=UUID(claims["sub"]),
                session_id=UUID(claims["sid"]),
                expires_at=claims["exp"],
            )
        except jwt.ExpiredSignatureError as error:
            raise _expired() from error
        except (jwt.InvalidTokenError, ValueError) as error:
            raise UnauthenticatedError("This access token is not valid.") from error

    def successor(self, refresh_token: str) -> str:
        """The one refresh token that follows this one.

        It is computed, not drawn, so that requests which spend the same token at the
        same moment get the same successor, though only hashes are stored.
        """
        mac = hmac.digest(self._refresh_key, refresh_token.encode(), "sha256")
        return urlsafe_b64encode(mac).rstrip(b"=").decode()

    def stored(self, refresh_token: str) -> bytes:
        """What is stored of it: under the secret, so a new one ends all sessions."""
        return hmac.digest(self._stored_key, refresh_token.encode(), "sha256")


def _expired() -> UnauthenticatedError:
    return UnauthenticatedError(
        "This access token has expired: refresh it.", code="token_expired"
    )


def new_refresh_token() -> str:
    """256 random bits, the first of a family."""
    return secrets.token_urlsafe(32)


def fingerprint(token: str) -> bytes:
    """What is stored of a token. It has too many random bits to need a salt."""
    return hashlib.sha256(token.encode()).digest()


def expires_after(days: float) -> datetime:
    return utcnow() + timedelta(days=days)


def derive(secret: bytes, purpose: bytes) -> bytes:
    """A key for one purpose."""
    return hmac.digest(secret, b"workroom v1: " + purpose, "sha256")
