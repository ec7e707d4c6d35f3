"""Logging in by other identity providers (TRUST L2, L3, L4)."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import jwt
import pytest
from sqlalchemy import func, select, update

from app.core.database import Database, utcnow
from app.core.passwords import NO_PASSWORD
from app.models import AuditEvent, Identity, OidcCode, OidcLogin, User, UserSession
from tests.client import Answer
from tests.conftest import Server
from tests.fakes.oidc import CLIENT_ID, CLIENT_SECRET, OTHER_KEY, FakeOidc, sign
from tests.integration.test_mfa import code_of, enroll

PASSWORD = "a long pass phrase"


class Browser:
    """Keeps cookies, follows no redirect by itself."""

    def __init__(self, server: Server, session: aiohttp.ClientSession) -> None:
        self.server = server
        self._session = session

    async def get(self, url: str) -> Answer:
        async with self._session.get(url, allow_redirects=False) as response:
            return Answer(response.status, response.headers, await response.read())

    async def begin(self, provider: str = "google") -> str:
        """Gives the provider's address that one is sent to."""
        answer = await self.get(f"{self.server.url}/api/v1/auth/{provider}/login")
        assert answer.status == 302, answer.body
        return str(answer.headers["Location"])

    async def come_back(self, location: str) -> Answer:
        """Our callback is where the test's server listens, not at PUBLIC_URL."""
        parts = urlsplit(location)
        return await self.get(f"{self.server.url}{parts.path}?{parts.query}")

    async def log_in(self, provider: str = "google") -> dict[str, str]:
        """Through the provider and back; gives what our page is called with."""
        sent = await self.get(await self.begin(provider))
        return page_of(await self.come_back(sent.headers["Location"]))

    async def exchange(self, code: str, provider: str = "google", **otp: str) -> Answer:
        client = self.server.anonymous()
        return await client.post(
            f"/auth/{provider}/exchange", json={"code": code, **otp}
        )


def page_of(answer: Answer) -> dict[str, str]:
    assert answer.status == 302, answer.body
    parts = urlsplit(answer.headers["Location"])
    assert parts._replace(query="").geturl() == "http://127.0.0.1:8000/login"
    return {name: values[0] for name, values in parse_qs(parts.query).items()}


@pytest.fixture
async def fake_oidc() -> AsyncIterator[FakeOidc]:
    async with FakeOidc() as fake:
        yield fake


def google(issuer: str) -> dict[str, str]:
    return {
        "GOOGLE_CLIENT_ID": CLIENT_ID,
        "GOOGLE_CLIENT_SECRET": CLIENT_SECRET,
        "GOOGLE_ISSUER": issuer,
    }


@asynccontextmanager
async def browser_at(server: Server) -> AsyncIterator[Browser]:
    jar = aiohttp.CookieJar(unsafe=True)  # for an address that is no name
    async with aiohttp.ClientSession(cookie_jar=jar) as session:
        yield Browser(server, session)


@pytest.fixture
async def browser(serve: Any, fake_oidc: FakeOidc) -> AsyncIterator[Browser]:
    variables = google(fake_oidc.issuer)
    async with serve(**variables) as server, browser_at(server) as browser:
        yield browser


async def users(database: Database) -> list[User]:
    async with database.unit_of_work(read_only=True) as session:
        return list(await session.scalars(select(User).order_by(User.id)))


async def test_a_first_login_makes_an_account_and_the_second_finds_it(
    browser: Browser, database: Database
) -> None:
    """TRUST L3."""
    first = await browser.exchange((await browser.log_in())["code"])
    second = await browser.exchange((await browser.log_in())["code"])
    client = browser.server.anonymous()
    client.use(second.json)
    me = await client.get("/auth/me")

    (user,) = await users(database)
    assert (first.status, second.status) == (200, 200)
    assert me.json["id"] == str(user.id)
    assert (me.json["email"], me.json["full_name"]) == ("ada@example.com", "Ada L.")
    assert user.password_hash == NO_PASSWORD
    assert user.email_verified_at is not None


async def test_an_account_without_a_password_takes_none(browser: Browser) -> None:
    await browser.log_in()
    client = browser.server.anonymous()

    for password in (NO_PASSWORD, "", "wrong"):
        form = {"login": "ada@example.com", "password": password}
        assert (await client.post("/auth/login", json=form)).status == 401


async def test_another_address_at_the_provider_is_the_same_user(
    browser: Browser, fake_oidc: FakeOidc, database: Database
) -> None:
    """TRUST L3: issuer and subject say who it is."""
    await browser.log_in()
    fake_oidc.claims |= {"email": "new@example.com", "email_verified": False}

    assert (await browser.exchange((await browser.log_in())["code"])).status == 200
    assert [user.email for user in await users(database)] == ["ada@example.com"]


async def test_the_same_subject_of_another_issuer_is_somebody_else(
    serve: Any, fake_oidc: FakeOidc, database: Database
) -> None:
    """TRUST L3: several providers at once."""
    async with FakeOidc() as other:
        other.claims |= {"email": "bob@example.com"}
        keycloak = {
            "issuer": other.issuer,
            "client_id": CLIENT_ID,
            "client_secret": CLIENT_SECRET,
        }
        variables = google(fake_oidc.issuer)
        variables["OIDC_PROVIDERS"] = json.dumps({"keycloak": keycloak})
        async with serve(**variables) as server, browser_at(server) as browser:
            names = await server.anonymous().get("/auth/oidc")
            here = await browser.log_in()
            there = await browser.log_in("oidc/keycloak")
            crossed = await browser.exchange(there["code"], "google")
            right = await browser.exchange(there["code"], "oidc/keycloak")

    assert names.json == {"items": ["google", "keycloak"]}
    assert (crossed.status, right.status) == (401, 200)
    assert here["code"] != there["code"]
    found = [user.email for user in await users(database)]
    assert found == ["ada@example.com", "bob@example.com"]


@pytest.mark.parametrize(
    "claims",
    [
        {"email_verified": False},
        {"email_verified": None},
        {"email_verified": "false"},
        {"email_verified": 1},
        {"email": None},
        {"email": "no address"},
    ],
    ids=str,
)
async def test_an_address_that_the_provider_has_not_verified_links_nothing(
    browser: Browser, fake_oidc: FakeOidc, database: Database, claims: dict[str, Any]
) -> None:
    """TRUST L3."""
    await browser.server.client("ada")
    fake_oidc.claims |= claims

    assert await browser.log_in() == {"error": "email_not_verified"}
    async with database.unit_of_work(read_only=True) as session:
        assert await session.scalar(select(func.count(Identity.id))) == 0


async def test_a_login_onto_an_unverified_account_takes_it_from_who_made_it(
    browser: Browser, database: Database
) -> None:
    """TRUST L2: password, second factor, identities and sessions are gone."""
    mallory = await browser.server.client("ada")
    await enroll(mallory)

    owner = await browser.exchange((await browser.log_in())["code"])

    assert owner.status == 200
    assert (await mallory.get("/auth/me")).status == 401
    form = {"login": "ada@example.com", "password": PASSWORD}
    assert (await mallory.post("/auth/login", json=form)).status == 401
    refresh = {"refresh_token": mallory.tokens["refresh_token"]}
    assert (await mallory.post("/auth/refresh", json=refresh)).status == 401
    (user,) = await users(database)
    assert user.email_verified_at is not None


async def test_a_login_onto_a_verified_account_leaves_it_as_it_is(
    browser: Browser, database: Database
) -> None:
    """TRUST L3."""
    ada = await browser.server.client("ada")
    async with database.unit_of_work() as session:
        await session.execute(update(User).values(email_verified_at=utcnow()))

    assert (await browser.exchange((await browser.log_in())["code"])).status == 200
    assert (await ada.get("/auth/me")).status == 200
    await ada.login("ada@example.com", PASSWORD)


@pytest.mark.parametrize("status", ["suspended", "archived"])
async def test_who_may_not_log_in_may_not_by_a_provider(
    browser: Browser, database: Database, status: str
) -> None:
    """TRUST T4."""
    code = (await browser.log_in())["code"]
    async with database.unit_of_work() as session:
        await session.execute(update(User).values(status=status))

    assert (await browser.exchange(code)).status == 401
    assert await browser.log_in() == {"error": "account_unavailable"}


async def test_a_code_is_exchanged_once_and_soon(
    browser: Browser, database: Database
) -> None:
    code = (await browser.log_in())["code"]
    late = (await browser.log_in())["code"]
    first, again = await browser.exchange(code), await browser.exchange(code)
    async with database.unit_of_work() as session:
        await session.execute(
            update(OidcCode).values(expires_at=utcnow() - timedelta(seconds=1))
        )

    assert (first.status, again.status) == (200, 401)
    assert again.json["code"] == "invalid_credentials"
    assert (await browser.exchange(late)).status == 401
    assert (await browser.exchange("made up")).status == 401


async def test_the_second_factor_is_asked_for_here_too(
    browser: Browser, database: Database
) -> None:
    """TRUST L4: no other way in goes round it."""
    client = browser.server.anonymous()
    client.use((await browser.exchange((await browser.log_in())["code"])).json)
    secret, _ = await enroll(client)

    code = (await browser.log_in())["code"]
    without = await browser.exchange(code)
    wrong = await browser.exchange(code, otp="000000")
    right = await browser.exchange(code, otp=code_of(secret))

    assert (without.status, without.json["code"]) == (401, "mfa_required")
    assert (wrong.status, wrong.json["code"]) == (401, "invalid_credentials")
    assert right.status == 200


async def test_guessing_the_second_factor_here_is_limited(browser: Browser) -> None:
    """TRUST L4."""
    client = browser.server.anonymous()
    client.use((await browser.exchange((await browser.log_in())["code"])).json)
    secret, _ = await enroll(client)
    code = (await browser.log_in())["code"]

    for _ in range(5):
        assert (await browser.exchange(code, otp="000000")).status == 401
    assert (await browser.exchange(code, otp=code_of(secret))).status == 401


async def test_who_guesses_passwords_locks_nobody_out_here(browser: Browser) -> None:
    """TRUST P4."""
    await browser.log_in()
    client = browser.server.anonymous()
    for _ in range(10):
        form = {"login": "ada@example.com", "password": "wrong"}
        await client.post("/auth/login", json=form)

    assert (await browser.exchange((await browser.log_in())["code"])).status == 200


# What comes back must be what went out


async def test_a_state_is_good_once(browser: Browser) -> None:
    """TRUST L3."""
    sent = await browser.get(await browser.begin())

    first = await browser.come_back(sent.headers["Location"])
    again = await browser.come_back(sent.headers["Location"])

    assert "code" in page_of(first)
    assert (again.status, again.json["code"]) == (400, "invalid_login_state")


async def test_a_state_is_bound_to_the_browser(browser: Browser) -> None:
    """TRUST L3: a link to somebody else's login logs nobody in as them."""
    sent = await browser.get(await browser.begin())

    async with browser_at(browser.server) as victim:
        without = await victim.come_back(sent.headers["Location"])
        await victim.begin()
        with_its_own = await victim.come_back(sent.headers["Location"])

    assert (without.status, with_its_own.status) == (400, 400)
    # That they tried took nothing from who began it.
    assert "code" in page_of(await browser.come_back(sent.headers["Location"]))


async def test_two_logins_of_one_browser_do_not_disturb_each_other(
    browser: Browser,
) -> None:
    first, second = await browser.begin(), await browser.begin()

    for begun in (first, second):
        sent = await browser.get(begun)
        assert "code" in page_of(await browser.come_back(sent.headers["Location"]))


async def test_a_state_expires(browser: Browser, database: Database) -> None:
    sent = await browser.get(await browser.begin())
    async with database.unit_of_work() as session:
        await session.execute(
            update(OidcLogin).values(expires_at=utcnow() - timedelta(seconds=1))
        )

    assert (await browser.come_back(sent.headers["Location"])).status == 400
    await browser.server.runtime.oidc.purge()
    async with database.unit_of_work(read_only=True) as session:
        assert await session.scalar(select(func.count(OidcLogin.id))) == 0


async def test_the_cookie_is_for_us_alone(serve: Any, fake_oidc: FakeOidc) -> None:
    """TRUST L3."""
    variables = google(fake_oidc.issuer)
    variables["PUBLIC_URL"] = "https://room.example.com"
    async with serve(**variables) as server, browser_at(server) as browser:
        answer = await browser.get(f"{server.url}/api/v1/auth/google/login")

    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith("__Host-workroom_login=")
    assert {"HttpOnly", "Secure", "Path=/", "SameSite=lax"} <= set(cookie.split("; "))
    assert answer.headers["Cache-Control"] == "no-store"
    back = parse_qs(urlsplit(answer.headers["Location"]).query)["redirect_uri"]
    # Of PUBLIC_URL, whatever Host said.
    assert back == ["https://room.example.com/api/v1/auth/google/callback"]


async def test_pkce_and_nonce_go_out_anew_each_time(browser: Browser) -> None:
    """TRUST L3."""
    queries = [parse_qs(urlsplit(await browser.begin()).query) for _ in range(2)]

    assert all(query["code_challenge_method"] == ["S256"] for query in queries)
    for name in ("state", "nonce", "code_challenge"):
        (first,), (second,) = (query[name] for query in queries)
        assert first != second
        assert len(first) >= 43


async def test_a_code_of_another_login_does_not_fit(
    browser: Browser, fake_oidc: FakeOidc, database: Database
) -> None:
    """TRUST L3: the provider knows by PKCE that it was sent to another browser."""
    stolen = await browser.get(await browser.begin())
    stolen_code = parse_qs(urlsplit(stolen.headers["Location"]).query)["code"][0]
    own = parse_qs(urlsplit(await browser.begin()).query)["state"][0]

    answer = await browser.come_back(
        f"/api/v1/auth/google/callback?state={own}&code={stolen_code}"
    )

    assert page_of(answer) == {"error": "identity_provider_failed"}
    assert await users(database) == []


def _claims(**changes: Any) -> Any:
    return lambda claims: sign(claims | changes)


def _without(name: str) -> Any:
    return lambda claims: sign({k: v for k, v in claims.items() if k != name})


FORGERIES = {
    "another nonce": _claims(nonce="another"),
    "no nonce": _without("nonce"),
    "a nonce that is no text": _claims(nonce=1),
    "another audience": _claims(aud="another"),
    "more audiences, for another": _claims(aud=[CLIENT_ID, "another"], azp="another"),
    "more audiences, for nobody": _claims(aud=[CLIENT_ID, "another"]),
    "another issuer": _claims(iss="https://evil.example.com"),
    "expired": _claims(exp=1_700_000_000),
    "no expiry": _without("exp"),
    "no subject": _without("sub"),
    "an empty subject": _claims(sub=""),
    "a subject without end": _claims(sub="x" * 256),
    "another key": lambda claims: sign(claims, OTHER_KEY),
    "a key that is not there": lambda claims: sign(claims, OTHER_KEY, kid="two"),
    "a key of its own": lambda claims: sign(
        claims, OTHER_KEY, jwk={"kty": "RSA"}, jku="https://evil.example.com/keys"
    ),
    "an unknown crit": lambda claims: sign(claims, crit=["x"], x=1),
    "no signature": lambda claims: jwt.encode(claims, "", "none"),
    "the client's secret": lambda claims: jwt.encode(
        claims, CLIENT_SECRET * 2, "HS256", headers={"kid": "one"}
    ),
    "no token": lambda _claims: "no token",
    "another type": lambda _claims: 1,
}


@pytest.mark.parametrize("forgery", FORGERIES)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_token_that_is_not_exactly_right_lets_nobody_in(
    browser: Browser, fake_oidc: FakeOidc, database: Database, forgery: str
) -> None:
    """TRUST L3, T1."""
    fake_oidc.forge = FORGERIES[forgery]

    assert await browser.log_in() == {"error": "identity_provider_failed"}
    assert await users(database) == []


async def test_new_keys_are_found(browser: Browser, fake_oidc: FakeOidc) -> None:
    await browser.log_in()
    fake_oidc.keys = {"two": OTHER_KEY}
    fake_oidc.forge = lambda claims: sign(claims, OTHER_KEY, kid="two")
    provider = browser.server.runtime.oidc._providers["google"]

    too_soon = await browser.log_in()
    assert provider._keys is not None
    provider._keys = provider._keys[0] - 61, provider._keys[1]
    found = await browser.log_in()

    assert too_soon == {"error": "identity_provider_failed"}
    assert "code" in found
    assert fake_oidc.asked.count("/.well-known/openid-configuration") == 1
    assert fake_oidc.asked.count("/keys") == 2


@pytest.mark.parametrize(
    "discovery",
    [
        {"issuer": "https://evil.example.com"},
        {"token_endpoint": "file:///etc/passwd"},
        {"authorization_endpoint": "javascript:alert(1)"},
        {"jwks_uri": None},
    ],
    ids=str,
)
@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_discovery_document_that_lies_is_refused(
    browser: Browser, fake_oidc: FakeOidc, discovery: dict[str, Any]
) -> None:
    """TRUST L3."""
    fake_oidc.discovery = discovery

    answer = await browser.get(f"{browser.server.url}/api/v1/auth/google/login")

    assert (answer.status, answer.json["code"]) == (502, "identity_provider_failed")


@pytest.mark.parametrize("backend", ["sqlite"], indirect=True)
async def test_a_provider_that_is_away_is_an_error_of_its_own(serve: Any) -> None:
    async with serve(**google("http://127.0.0.1:1")) as server:
        answer = await server.anonymous().get("/auth/google/login")

    assert (answer.status, answer.json["code"]) == (
        502, "identity_provider_unavailable",
    )  # fmt: skip


async def test_what_the_provider_refuses_our_page_hears(browser: Browser) -> None:
    state = parse_qs(urlsplit(await browser.begin()).query)["state"][0]

    answer = await browser.come_back(
        f"/api/v1/auth/google/callback?state={state}&error=access_denied"
    )

    assert page_of(answer) == {"error": "provider_refused"}


async def test_where_none_is_configured_there_is_none(server: Server) -> None:
    client = server.anonymous()

    assert (await client.get("/auth/google/login")).status == 404
    assert (await client.get("/auth/oidc/keycloak/login")).status == 404
    assert (await client.get("/auth/oidc")).json == {"items": []}


async def test_links_are_audited(browser: Browser, database: Database) -> None:
    await browser.log_in()

    async with database.unit_of_work(read_only=True) as session:
        actions = await session.scalars(select(AuditEvent.action))
        assert set(actions) == {"user.register", "identity.link"}
        assert await session.scalar(select(func.count(UserSession.id))) == 0


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # its own libraries' age
async def test_a_whole_login_by_another_implementation(
    serve: Any, database: Database
) -> None:
    """TRUST L3: against a provider that is none of ours."""
    import oidc_provider_mock

    person = oidc_provider_mock.User(
        sub="bob-7", claims={"email": "bob@example.com", "email_verified": True}
    )
    with oidc_provider_mock.run_server_in_thread(user_claims=[person]) as provider:
        issuer = f"http://localhost:{provider.server_port}"
        async with serve(**google(issuer)) as server, browser_at(server) as browser:
            async with browser._session.post(
                await browser.begin(), data={"sub": "bob-7"}, allow_redirects=False
            ) as sent:
                back = await browser.come_back(sent.headers["Location"])
            tokens = await browser.exchange(page_of(back)["code"])

    assert tokens.status == 200
    assert [user.email for user in await users(database)] == ["bob@example.com"]
