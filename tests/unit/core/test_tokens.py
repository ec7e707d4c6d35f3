"""TRUST T1, T2."""

import json
import warnings
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Any
from uuid import uuid4

import jwt
import pytest

from app.core.config import SecuritySettings
from app.core.database import utcnow
from app.core.exceptions import UnauthenticatedError
from app.core.tokens import USER_AUDIENCE, Tokens, fingerprint, new_refresh_token

SECRET = "a secret key that is only for tests"
USER, SESSION = uuid4(), uuid4()


@pytest.fixture
def tokens() -> Tokens:
    return Tokens(SecuritySettings.model_validate({"SECRET_KEY": SECRET}))


def forged(
    tokens: Tokens,
    *,
    header: dict[str, Any] | None = None,
    algorithm: str = "HS256",
    **claims: Any,
) -> str:
    """A token signed with the right key; what is given replaces what it should be."""
    now = utcnow()
    good = {
        "iss": "workroom",
        "aud": USER_AUDIENCE,
        "sub": str(USER),
        "sid": str(SESSION),
        "iat": int(now.timestamp()),
        "exp": int((now + timedelta(minutes=5)).timestamp()),
    }
    payload = {k: v for k, v in (good | claims).items() if v is not None}
    headers = {"typ": "at+jwt"} | (header or {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the key is short for HS512
        return jwt.encode(payload, tokens._access_key, algorithm, headers=headers)


def test_an_issued_token_reads_back(tokens: Tokens) -> None:
    now = utcnow()
    token = tokens.issue_access(account_id=USER, session_id=SESSION, now=now)

    claims = tokens.read_access(token)

    assert claims.account_id == USER
    assert claims.session_id == SESSION
    assert claims.expires_at == int(now.timestamp()) + 30 * 60


def test_the_forger_of_these_tests_can_make_a_good_one(tokens: Tokens) -> None:
    assert tokens.read_access(forged(tokens)).account_id == USER


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "another"},
        {"aud": "workroom:admin"},
        {"aud": [USER_AUDIENCE, "workroom:admin"]},
        {"aud": None},
        {"sub": "nobody"},
        {"sid": None},
        {"exp": None},
        {"algorithm": "HS512"},
        {"header": {"typ": "JWT"}},
        {"header": {"jku": "https://example.com/keys"}},
        {"header": {"jwk": {"kty": "oct", "k": "AA"}}},
        {"header": {"kid": "1"}},
        {"header": {"crit": ["exp"], "exp": 1}},
    ],
    ids=str,
)
def test_a_token_that_is_not_exactly_ours_is_refused(
    tokens: Tokens, changes: dict[str, Any]
) -> None:
    """T1."""
    with pytest.raises(UnauthenticatedError) as refused:
        tokens.read_access(forged(tokens, **changes))
    assert refused.value.status == 401


def test_an_unsigned_token_is_refused(tokens: Tokens) -> None:
    """T1: `alg: none`, whatever header it comes with."""
    _, payload, signature = forged(tokens).split(".")
    for algorithm in ("none", "None", "HS256"):
        header = json.dumps({"alg": algorithm, "typ": "at+jwt"}).encode()
        start = urlsafe_b64encode(header).rstrip(b"=").decode()
        for end in ("", "AAAA", signature[:-2]):
            with pytest.raises(UnauthenticatedError):
                tokens.read_access(f"{start}.{payload}.{end}")


def test_an_expired_token_says_so(tokens: Tokens) -> None:
    past = utcnow() - timedelta(hours=2)
    token = tokens.issue_access(account_id=USER, session_id=SESSION, now=past)

    with pytest.raises(UnauthenticatedError) as refused:
        tokens.read_access(token)
    assert refused.value.code == "token_expired"


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é.é.é", "x" * 43])
def test_garbage_is_refused(tokens: Tokens, token: str) -> None:
    with pytest.raises(UnauthenticatedError):
        tokens.read_access(token)


def test_another_installations_token_is_refused(tokens: Tokens) -> None:
    other = Tokens(SecuritySettings.model_validate({"SECRET_KEY": SECRET + "!"}))

    with pytest.raises(UnauthenticatedError):
        tokens.read_access(forged(other))


def test_a_refresh_token_has_one_successor_that_only_we_can_tell(
    tokens: Tokens,
) -> None:
    """T2, T3."""
    other = Tokens(SecuritySettings.model_validate({"SECRET_KEY": SECRET + "!"}))
    first = new_refresh_token()

    assert len(first) >= 43  # 256 bits
    assert tokens.successor(first) == tokens.successor(first)
    assert tokens.successor(first) != other.successor(first)
    assert (
        len({first, tokens.successor(first), tokens.successor(other.successor(first))})
        == 3
    )


def test_what_is_stored_does_not_tell_the_token(tokens: Tokens) -> None:
    token = new_refresh_token()

    for stored in (fingerprint(token), tokens.stored(token)):
        assert len(stored) == 32
        assert token.encode() not in stored


def test_what_is_stored_of_a_refresh_token_only_we_can_find(tokens: Tokens) -> None:
    """T2."""
    other = Tokens(SecuritySettings.model_validate({"SECRET_KEY": SECRET + "!"}))
    token = new_refresh_token()

    assert tokens.stored(token) == tokens.stored(token)
    assert len({tokens.stored(token), other.stored(token), fingerprint(token)}) == 3


def test_a_token_that_was_good_expires_all_the_same(
    tokens: Tokens, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = utcnow()
    token = tokens.issue_access(account_id=USER, session_id=SESSION, now=now)
    tokens.read_access(token)

    monkeypatch.setattr("time.time", lambda: now.timestamp() + 30 * 60)

    with pytest.raises(UnauthenticatedError) as refused:
        tokens.read_access(token)
    assert refused.value.code == "token_expired"
