"""TRUST P1, P2, P3."""

import base64
import hashlib

import bcrypt
import pytest
from argon2 import PasswordHasher

from app.core.config import SecuritySettings
from app.core.passwords import Passwords, weakness

SECRET = "a secret key that is only for tests"
PASSWORD = "correct horse"


def passwords(scheme: str = "bcrypt", rounds: int = 4) -> Passwords:
    return Passwords(
        SecuritySettings.model_validate(
            {
                "SECRET_KEY": SECRET,
                "PASSWORD_SCHEME": scheme,
                "BCRYPT_ROUNDS": rounds,
            }
        )
    )


def pbkdf2(algorithm: str) -> str:
    found = hashlib.pbkdf2_hmac(algorithm, PASSWORD.encode(), b"salt", 10)
    return f"pbkdf2_{algorithm}$10$salt${base64.b64encode(found).decode()}"


@pytest.mark.parametrize("scheme", ["bcrypt", "argon2id"])
async def test_a_password_opens_its_own_hash_alone(scheme: str) -> None:
    checker = passwords(scheme)
    stored = await checker.hash(PASSWORD)

    assert await checker.verify(PASSWORD, stored)
    assert not await checker.verify(PASSWORD + "x", stored)
    assert not checker.outdated(stored)


@pytest.mark.parametrize("scheme", ["bcrypt", "argon2id"])
async def test_nothing_is_cut_at_72_bytes(scheme: str) -> None:
    """P1."""
    checker = passwords(scheme)
    long = "ü" * 64  # 64 characters, 128 bytes
    stored = await checker.hash(long)

    assert await checker.verify(long, stored)
    assert not await checker.verify(long[:-1] + "u", stored)
    assert not await checker.verify(long[:36], stored)


@pytest.mark.parametrize(
    "stored",
    [
        pytest.param(pbkdf2("sha256"), id="django pbkdf2_sha256"),
        pytest.param(pbkdf2("sha1"), id="django pbkdf2_sha1"),
        pytest.param(
            "bcrypt$" + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(),
            id="django bcrypt",
        ),
        pytest.param(
            bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(), id="bcrypt"
        ),
        pytest.param("argon2" + PasswordHasher().hash(PASSWORD), id="django argon2"),
        pytest.param(PasswordHasher().hash(PASSWORD), id="argon2"),
    ],
)
async def test_hashes_of_other_schemes_open_and_are_outdated(stored: str) -> None:
    """P2."""
    checker = passwords()

    assert await checker.verify(PASSWORD, stored)
    assert not await checker.verify("wrong horse", stored)
    assert checker.outdated(stored)


async def test_djangos_bcrypt_sha256_is_our_own_form() -> None:
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest().encode()
    stored = "bcrypt_sha256$" + bcrypt.hashpw(digest, bcrypt.gensalt(4)).decode()

    assert await passwords().verify(PASSWORD, stored)
    assert not passwords().outdated(stored)


async def test_fewer_rounds_are_outdated() -> None:
    """P2."""
    stored = await passwords(rounds=4).hash(PASSWORD)

    assert passwords(rounds=5).outdated(stored)
    assert not passwords(rounds=4).outdated(stored)


async def test_weaker_argon2_is_outdated() -> None:
    weak = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)

    assert passwords("argon2id").outdated(weak)


@pytest.mark.parametrize(
    "stored",
    [
        "bcrypt_sha256$$2b$04$short",
        "bcrypt_sha256$damaged",
        "pbkdf2_sha256$rounds$salt$hash",
        "pbkdf2_sha256$10$salt",
        "$argon2id$damaged",
        "argon2$argon2id$damaged",
        "unknown$scheme",
        "",
    ],
)
async def test_a_damaged_hash_opens_for_nobody(stored: str) -> None:
    assert not await passwords().verify(PASSWORD, stored)


async def test_one_hash_is_done_whether_there_is_an_account_or_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P3: counted, not clocked."""
    checker = passwords()
    stored = await checker.hash(PASSWORD)
    await checker.verify("anything", None)  # makes the decoy once
    counted: list[bytes] = []
    real = bcrypt.checkpw

    def counting(password: bytes, hashed: bytes) -> bool:
        counted.append(hashed)
        return real(password, hashed)

    monkeypatch.setattr(bcrypt, "checkpw", counting)

    for known in (stored, None):
        counted.clear()
        assert not await checker.verify("wrong", known)
        assert len(counted) == 1


@pytest.mark.parametrize(
    "password",
    ["password1", "PASSWORD1", "ada@example.com", "ada", "ada.lovelace", "Lovelace"],
)
def test_common_and_own_words_are_refused(password: str) -> None:
    """P1."""
    personal = ("ada@example.com", None, "ada.lovelace Lovelace")
    assert weakness(password, *personal)


def test_any_other_password_is_taken() -> None:
    assert weakness("a long pass phrase", "ada@example.com", None, None) is None
