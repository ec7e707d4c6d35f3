import base64
import time
from urllib.parse import parse_qs, urlsplit

import pytest

from app.core import totp

RFC_SECRET = base64.b32encode(b"12345678901234567890").decode()


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (59, "94287082"),
        (1111111109, "07081804"),
        (1111111111, "14050471"),
        (1234567890, "89005924"),
        (2000000000, "69279037"),
        (20000000000, "65353130"),
    ],
)
def test_the_codes_of_rfc_6238(seconds: int, expected: str) -> None:
    """Its appendix B has eight digits, of which ours are the last six."""
    assert totp.code(RFC_SECRET, seconds // totp.STEP) == expected[-6:]


@pytest.mark.parametrize(
    ("off", "counts"), [(-2, False), (-1, True), (0, True), (1, True), (2, False)]
)
def test_a_clock_may_be_off_by_one_step(
    monkeypatch: pytest.MonkeyPatch, off: int, *, counts: bool
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    step = 1_800_000_000 // totp.STEP + off

    found = totp.matching_step(RFC_SECRET, totp.code(RFC_SECRET, step), after=0)

    assert found == (step if counts else None)


def test_a_code_counts_no_more_after_its_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_800_000_000.0)
    now = 1_800_000_000 // totp.STEP

    assert totp.matching_step(RFC_SECRET, totp.code(RFC_SECRET, now), after=now) is None
    assert (
        totp.matching_step(RFC_SECRET, totp.code(RFC_SECRET, now - 1), after=now)
        is None
    )
    following = totp.code(RFC_SECRET, now + 1)
    assert totp.matching_step(RFC_SECRET, following, after=now) == now + 1


@pytest.mark.parametrize("given", ["", "12345", "1234567", "\uff11" * 6, "no code"])
def test_what_is_no_code_is_wrong(given: str) -> None:
    assert totp.matching_step(RFC_SECRET, given, after=0) is None


def test_secrets_are_long_and_never_the_same() -> None:
    secrets = {totp.new_secret() for _ in range(50)}

    assert len(secrets) == 50
    assert {len(base64.b32decode(secret)) for secret in secrets} == {20}


def test_the_address_for_an_app() -> None:
    address = urlsplit(totp.uri("ABC", issuer="Our Room", label="ada@example.com"))

    assert (address.scheme, address.netloc) == ("otpauth", "totp")
    assert address.path == "/Our%20Room:ada%40example.com"
    assert parse_qs(address.query) == {"secret": ["ABC"], "issuer": ["Our Room"]}
    assert "+" not in address.query
