"""Logging in by another identity provider (OpenID Connect).

The browser is sent to the provider and comes back with a code, which is redeemed for
who it is; then our page gets a code of its own to trade for tokens. What a login must
come back with is derived from its state by a key, so nothing secret is stored of it.
"""

import hashlib
import hmac
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode
from uuid import UUID

import structlog
from pydantic import TypeAdapter, ValidationError
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Settings
from app.core.database import Database, utcnow
from app.core.exceptions import (
    AppError,
    BadRequestError,
    ConflictError,
    ForbiddenError,
    NotFoundError,
)
from app.core.passwords import NO_PASSWORD
from app.core.tokens import derive, fingerprint
from app.integrations.oauth import oidc
from app.integrations.oauth.oidc import OidcProvider, Request
from app.models import Identity, OidcCode, OidcLogin, User
from app.schemas.oidc import OidcExchange
from app.schemas.user import Email, TokenPair
from app.services import audit
from app.services.audit import Actor
from app.services.auth import Auth, Client
from app.services.link import links
from app.services.lockout import Account
from app.services.login import InvalidCredentialsError, Logins
from app.services.mfa import Mfa

_LOGIN_LIFE = timedelta(minutes=10)
_CODE_LIFE = timedelta(minutes=5)
_MAX_NAME = 200
_EMAIL: TypeAdapter[str] = TypeAdapter(Email)
_log = structlog.get_logger()


class UnverifiedEmailError(ForbiddenError):
    code = "email_not_verified"

    def __init__(self) -> None:
        super().__init__("The identity provider has not verified your address.")


class AccountUnavailableError(ForbiddenError):
    code = "account_unavailable"

    def __init__(self) -> None:
        super().__init__("This account cannot be logged in to.")


@dataclass(frozen=True, slots=True)
class Begun:
    url: str
    browser: str
    """What the browser must show when it comes back."""


class Oidc:
    def __init__(
        self,
        settings: Settings,
        *,
        database: Database,
        auth: Auth,
        logins: Logins,
        mfa: Mfa,
    ) -> None:
        self._server = settings.server
        self._page = settings.login.oidc_return_url or f"{settings.server.url}/login"
        self._database = database
        self._auth = auth
        self._logins = logins
        self._mfa = mfa
        secret = settings.security.secret_key.get_secret_value().encode()
        self._key = derive(secret, b"oidc login")
        self._providers = {
            provider.name: OidcProvider(provider)
            for provider in settings.login.identity_providers
        }

    @property
    def names(self) -> list[str]:
        return list(self._providers)

    async def begin(self, name: str, browser: str | None) -> Begun:
        """Where to send a browser; one that is on its way already keeps its mark."""
        provider = self._provider(name)
        state = secrets.token_urlsafe(32)
        browser = browser or secrets.token_urlsafe(32)
        url = await provider.authorization_url(self._request(name, state))
        async with self._database.unit_of_work() as session:
            session.add(
                OidcLogin(
                    state_hash=fingerprint(state),
                    browser_hash=fingerprint(browser),
                    provider=name,
                    expires_at=utcnow() + _LOGIN_LIFE,
                )
            )
        return Begun(url, browser)

    async def finish(
        self, name: str, *, state: str, code: str | None, browser: str | None
    ) -> str:
        """Our page's address, with a code to exchange, or an error's.

        `code` is None where the provider refuses. Raises BadRequestError for a state
        that this browser was not sent out with, or has come back with before.
        """
        provider = self._provider(name)
        await self._take(name, state, browser)
        try:
            if code is None:
                raise ForbiddenError("Not allowed there.", code="provider_refused")
            found = await provider.redeem(code, self._request(name, state))
            query = {"code": await self._admit(name, found)}
        except AppError as error:
            _log.warning("oidc login", provider=name, code=error.code, why=error.detail)
            query = {"error": error.code}
        return f"{self._page}{'&' if '?' in self._page else '?'}{urlencode(query)}"

    async def exchange(
        self, session: AsyncSession, name: str, form: OidcExchange, client: Client
    ) -> TokenPair:
        """Trade the page's code for tokens, once.

        Raises InvalidCredentialsError, and MfaRequiredError where a second factor is
        missing: then the code is still good.
        """
        self._provider(name)
        found = await session.execute(
            select(OidcCode, User.email)
            .join(User, User.id == OidcCode.user_id)
            .where(
                OidcCode.code_hash == fingerprint(form.code),
                OidcCode.provider == name,
                OidcCode.expires_at > utcnow(),
                User.status == "active",
            )
            .with_for_update()
        )
        row = found.one_or_none()
        if row is None:
            raise InvalidCredentialsError
        given, email = row
        account = Account("user", name, given.user_id, email, by="provider")
        attempt = await self._logins.begin(session, account, client.ip)
        tokens = await self._auth.admit(session, attempt, client, otp=form.otp)
        await session.delete(given)
        return tokens

    async def purge(self) -> None:
        for table in (OidcLogin, OidcCode):
            await self._database.delete_in_chunks(table, table.expires_at < utcnow())

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()

    def _provider(self, name: str) -> OidcProvider:
        if name not in self._providers:
            raise NotFoundError("There is no identity provider of this name.")
        return self._providers[name]

    def _request(self, name: str, state: str) -> Request:
        verifier = self._derived(b"verifier", state)
        challenge = _base64(hashlib.sha256(verifier.encode()).digest())
        path = "google" if name == "google" else f"oidc/{name}"
        return Request(
            redirect_uri=f"{self._server.url}/api/v1/auth/{path}/callback",
            state=state,
            nonce=self._derived(b"nonce", state),
            verifier=verifier,
            challenge=challenge,
        )

    def _derived(self, purpose: bytes, state: str) -> str:
        return _base64(hmac.digest(self._key, purpose + state.encode(), "sha256"))

    async def _take(self, name: str, state: str, browser: str | None) -> None:
        """Spend a state, before anything is asked of the provider."""
        async with self._database.unit_of_work() as session:
            taken = await session.scalar(
                delete(OidcLogin)
                .where(
                    OidcLogin.state_hash == fingerprint(state),
                    OidcLogin.browser_hash == fingerprint(browser or ""),
                    OidcLogin.provider == name,
                    OidcLogin.expires_at > utcnow(),
                )
                .returning(OidcLogin.id)
            )
        if taken is None:
            raise BadRequestError(
                "This login was not begun in this browser, or has ended: begin anew.",
                code="invalid_login_state",
            )

    async def _admit(self, name: str, found: oidc.Identity) -> str:
        """The one-time code for the user that somebody is."""
        code = secrets.token_urlsafe(32)
        async with self._database.unit_of_work() as session:
            try:
                user_id = await self._user_of(session, found)
                session.add(
                    OidcCode(
                        user_id=user_id,
                        provider=name,
                        code_hash=fingerprint(code),
                        expires_at=utcnow() + _CODE_LIFE,
                    )
                )
                await session.flush()
            except IntegrityError as error:  # a twin came back at the same moment
                raise ConflictError("Another login is under way: try again.") from error
        return code

    async def _user_of(self, session: AsyncSession, found: oidc.Identity) -> UUID:
        """By issuer and subject; else by an address, if the provider verified it."""
        result = await session.execute(
            select(Identity, User.status)
            .join(User, User.id == Identity.user_id)
            .where(Identity.issuer == found.issuer, Identity.subject == found.subject)
        )
        known = result.one_or_none()
        if known is not None and known.status == "active":
            user_id: UUID = known.Identity.user_id
            return user_id
        if known is not None:
            if known.status != "deleted":
                raise AccountUnavailableError
            await session.delete(known.Identity)  # who begins anew inherits nothing
            await session.flush()
        user = await self._by_address(session, found)
        session.add(
            Identity(user_id=user.id, issuer=found.issuer, subject=found.subject)
        )
        await _record(session, user.id, "identity.link", found.issuer)
        return user.id

    async def _by_address(self, session: AsyncSession, found: oidc.Identity) -> User:
        try:
            email = _EMAIL.validate_python(found.email)
        except ValidationError as error:
            raise UnverifiedEmailError from error
        if not found.email_verified:
            raise UnverifiedEmailError
        user = await session.scalar(
            select(User).where(User.email == email).with_for_update()
        )
        if user is None:
            return await _make(session, email, found)
        if user.status != "active":
            raise AccountUnavailableError
        if user.email_verified_at is None:
            await self._reclaim(session, user)
        return user

    async def _reclaim(self, session: AsyncSession, user: User) -> None:
        """Take from an account all that lets in whoever made it.

        Anybody can sign up with somebody else's address: its owner, who comes now, must
        not share the account with them.
        """
        user.password_hash = NO_PASSWORD
        user.email_verified_at = utcnow()
        await session.execute(delete(Identity).where(Identity.user_id == user.id))
        await session.execute(delete(OidcCode).where(OidcCode.user_id == user.id))
        await self._mfa.remove(session, user.id)
        await links.end(session, user)
        await self._auth.end_access_of(session, user.id)
        await audit.record(
            session, audit.SYSTEM, "user.reclaim", target=("user", user.id)
        )


async def _make(session: AsyncSession, email: str, found: oidc.Identity) -> User:
    """A new account, which has no password until its owner asks for one."""
    name = " ".join((found.name or "").replace("\0", "").split())[:_MAX_NAME]
    user = User(
        email=email,
        full_name=name or None,
        password_hash=NO_PASSWORD,
        email_verified_at=utcnow(),
    )
    session.add(user)
    await session.flush()
    await _record(session, user.id, "user.register", found.issuer)
    return user


async def _record(
    session: AsyncSession, user_id: UUID, action: str, issuer: str
) -> None:
    actor, target = Actor("user", user_id), ("user", user_id)
    await audit.record(session, actor, action, target=target, after={"issuer": issuer})


def _base64(digest: bytes) -> str:
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
