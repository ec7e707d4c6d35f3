"""An OpenID Connect provider that checks what it is sent, and lies when it is told to.

It logs in whoever comes, as `claims` says; `forge` may change an ID token's claims,
header and key.
"""

import base64
import hashlib
import time
from collections.abc import Callable
from typing import Any, Self

import jwt
from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric import rsa
from jwt.algorithms import RSAAlgorithm

CLIENT_ID, CLIENT_SECRET = "workroom", "a secret of the client"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)

Forge = Callable[[dict[str, Any]], str]


def sign(
    claims: dict[str, Any], key: Any = KEY, kid: str = "one", **header: Any
) -> str:
    return jwt.encode(claims, key, "RS256", headers={"kid": kid, **header})


class FakeOidc:
    def __init__(self) -> None:
        self.claims: dict[str, Any] = {
            "sub": "ada-1",
            "email": "ada@example.com",
            "email_verified": True,
            "name": "Ada L.",
        }
        self.forge: Forge = sign
        self.discovery: dict[str, Any] = {}
        """What the discovery document says otherwise."""
        self.keys: dict[str, Any] = {"one": KEY}
        self.codes: dict[str, dict[str, str]] = {}
        self.asked: list[str] = []
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._discover)
        app.router.add_get("/keys", self._keys)
        app.router.add_get("/authorize", self._authorize)
        app.router.add_post("/token", self._token)
        self._server = TestServer(app)

    @property
    def issuer(self) -> str:
        return str(self._server.make_url("")).rstrip("/")

    async def __aenter__(self) -> Self:
        await self._server.start_server()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._server.close()

    async def _discover(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        return web.json_response(
            {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "jwks_uri": f"{self.issuer}/keys",
                **self.discovery,
            }
        )

    async def _keys(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        keys = [
            RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
            | {"kid": kid, "use": "sig", "alg": "RS256"}
            for kid, key in self.keys.items()
        ]
        return web.json_response({"keys": keys})

    async def _authorize(self, request: web.Request) -> web.Response:
        query = dict(request.query)
        assert query["response_type"] == "code"
        assert query["code_challenge_method"] == "S256"
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        back = f"{query['redirect_uri']}?code={code}&state={query['state']}"
        raise web.HTTPFound(back)

    async def _token(self, request: web.Request) -> web.Response:
        self.asked.append(request.path)
        form = {name: str(value) for name, value in (await request.post()).items()}
        begun = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if (
            begun is None
            or form["client_secret"] != CLIENT_SECRET
            or form["redirect_uri"] != begun["redirect_uri"]
            or challenge != begun["code_challenge"]
        ):
            return web.json_response({"error": "invalid_grant"}, status=400)
        now = int(time.time())
        claims = {
            "iss": self.issuer,
            "aud": CLIENT_ID,
            "iat": now,
            "exp": now + 60,
            "nonce": begun["nonce"],
            **self.claims,
        }
        return web.json_response({"id_token": self.forge(claims)})
