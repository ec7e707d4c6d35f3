"""OpenID Connect: the code flow with PKCE, against one provider (OIDC Core 1.0).

Requests go to the configured issuer, and to the addresses that its own discovery
document names, over TLS wherever the issuer has it.
"""

import asyncio
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode, urlsplit

import aiohttp
import jwt

from app.core.config import OidcSettings
from app.core.exceptions import AppError

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512",
              "ES256", "ES384", "ES512", "EdDSA"]  # fmt: skip
"""Signatures by a key of the issuer's own: none is left to its client's secret."""

_SCOPE = "openid email profile"
_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=5)
_MAX_BYTES = 256 * 1024  # of an answer; discovery documents have some 5 KiB
_KEPT = 3600  # seconds for which a discovery document and keys are good
_KEYS_AT_MOST = 60  # seconds before keys are looked for again, whatever a token names
_LEEWAY = 60  # seconds by which the issuer's clock may be off
_MAX_SUBJECT = 255  # characters, section 2 of OIDC Core
_CLAIMS = ["iss", "aud", "exp", "iat", "sub"]


class IdentityProviderError(AppError):
    """The provider answered what it must not; the log has the reason."""

    status, code, title = 502, "identity_provider_failed", "Bad gateway"


class IdentityProviderUnavailableError(IdentityProviderError):
    code = "identity_provider_unavailable"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is to a provider: `issuer` and `subject` name them for good."""

    issuer: str
    subject: str
    email: str | None
    email_verified: bool
    name: str | None


@dataclass(frozen=True, slots=True)
class Request:
    """What a login begins with, and must come back with."""

    redirect_uri: str
    state: str
    nonce: str
    verifier: str
    challenge: str
    """Its SHA-256 in URL-safe base64 (PKCE's S256, RFC 7636)."""


class OidcProvider:
    def __init__(self, settings: OidcSettings) -> None:
        self.settings = settings
        self._session: aiohttp.ClientSession | None = None
        self._lock = asyncio.Lock()
        self._found: tuple[float, dict[str, Any]] | None = None
        self._keys: tuple[float, jwt.PyJWKSet] | None = None

    async def authorization_url(self, request: Request) -> str:
        """Where the browser goes. Raises IdentityProviderError."""
        found = await self._discover()
        query = urlencode(
            {
                "response_type": "code",
                "client_id": self.settings.client_id,
                "redirect_uri": request.redirect_uri,
                "scope": _SCOPE,
                "state": request.state,
                "nonce": request.nonce,
                "code_challenge": request.challenge,
                "code_challenge_method": "S256",
            }
        )
        endpoint = found["authorization_endpoint"]
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{query}"

    async def redeem(self, code: str, request: Request) -> Identity:
        """Who it is that came back with `code`. Raises IdentityProviderError."""
        found = await self._discover()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": request.redirect_uri,
            "client_id": self.settings.client_id,
            "client_secret": self.settings.client_secret.get_secret_value(),
            "code_verifier": request.verifier,
        }
        answer = await self._ask("POST", found["token_endpoint"], form)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise IdentityProviderError("The identity provider sent no ID token.")
        return await self._verify(token, request.nonce)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _verify(self, token: str, nonce: str) -> Identity:
        """Section 3.1.3.7 of OIDC Core, with every choice pinned."""
        settings = self.settings
        try:
            key = await self._key(jwt.get_unverified_header(token).get("kid"))
            claims = jwt.decode(
                token,
                key,
                algorithms=ALGORITHMS,
                issuer=settings.issuer,
                audience=settings.client_id,
                leeway=_LEEWAY,
                options={"require": _CLAIMS},
            )
        except (jwt.PyJWTError, ValueError) as error:
            raise IdentityProviderError(
                f"The identity provider's ID token is not valid: {error}."
            ) from error
        audiences = (
            claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
        )
        party = claims.get("azp", settings.client_id if len(audiences) == 1 else None)
        told = claims.get("nonce")
        if party != settings.client_id:
            raise IdentityProviderError("The ID token was issued for another client.")
        if not isinstance(told, str) or not hmac.compare_digest(
            told.encode(), nonce.encode()
        ):
            raise IdentityProviderError("The ID token belongs to another login.")
        return _identity(settings.issuer, claims)

    async def _key(self, kid: str | None) -> jwt.PyJWK:
        """The issuer's key of that id; keys are looked for anew where it is unknown."""
        for seconds in (_KEPT, _KEYS_AT_MOST):
            keys = [
                key
                for key in await self._key_set(seconds)
                if key.public_key_use in {None, "sig"}
            ]
            fitting = keys if kid is None else [k for k in keys if k.key_id == kid]
            if len(fitting) == 1:
                return fitting[0]
        raise IdentityProviderError("The ID token is signed by no key of its issuer.")

    async def _key_set(self, seconds: float) -> list[jwt.PyJWK]:
        async with self._lock:
            if self._keys is None or time.monotonic() - self._keys[0] > seconds:
                found = self._found[1] if self._found else {}
                answer = await self._ask("GET", found["jwks_uri"])
                self._keys = time.monotonic(), jwt.PyJWKSet.from_dict(answer)
            return self._keys[1].keys

    async def _discover(self) -> dict[str, Any]:
        async with self._lock:
            if self._found is None or time.monotonic() - self._found[0] > _KEPT:
                issuer = self.settings.issuer
                url = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
                found = await self._ask("GET", url)
                if found.get("issuer") != issuer:
                    raise IdentityProviderError(
                        f"{url} speaks for another issuer than {issuer}: write it as "
                        "the provider does."
                    )
                for name in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
                    _require_address(name, found.get(name), issuer)
                self._found = time.monotonic(), found
            return self._found[1]

    async def _ask(
        self, method: str, url: str, form: dict[str, str] | None = None
    ) -> dict[str, Any]:
        """The JSON object at an address; no redirects, bounded in time and size."""
        if self._session is None:
            self._session = aiohttp.ClientSession(
                timeout=_TIMEOUT, cookie_jar=aiohttp.DummyCookieJar()
            )
        try:
            async with self._session.request(
                method,
                url,
                data=form,
                headers={"Accept": "application/json"},
                allow_redirects=False,
            ) as response:
                body = await response.content.read(_MAX_BYTES)
                whole = response.content.at_eof()
                status = response.status
        except (aiohttp.ClientError, TimeoutError) as error:
            raise IdentityProviderUnavailableError(
                f"The identity provider {self.settings.name} cannot be reached."
            ) from error
        if status != 200 or not whole:  # noqa: PLR2004 - HTTP's "OK"
            raise IdentityProviderError(
                f"The identity provider {self.settings.name} answered {status}."
            )
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise IdentityProviderError(
                f"The identity provider {self.settings.name} answered no JSON object."
            )
        return answer


def _require_address(name: str, value: Any, issuer: str) -> None:
    schemes = {"https", urlsplit(issuer).scheme}
    if not isinstance(value, str) or urlsplit(value).scheme not in schemes:
        raise IdentityProviderError(f"The identity provider tells no safe {name}.")


def _identity(issuer: str, claims: dict[str, Any]) -> Identity:
    subject, email, name = (claims.get(key) for key in ("sub", "email", "name"))
    verified = claims.get("email_verified")
    if not isinstance(subject, str) or not 0 < len(subject) <= _MAX_SUBJECT:
        raise IdentityProviderError("The ID token names nobody.")
    return Identity(
        issuer=issuer,
        subject=subject,
        email=email if isinstance(email, str) else None,
        # A few providers write the word.
        email_verified=verified is True or verified == "true",
        name=name if isinstance(name, str) else None,
    )
