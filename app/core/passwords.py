"""Password hashes: one scheme to write, many to read.

bcrypt takes 72 bytes and says nothing of the rest, so a password is brought to 64
hexadecimal digits by SHA-256 first. The stored form is Django's `bcrypt_sha256$`, so
that hashes which come from there are simply right; the other forms of Django and plain
bcrypt and Argon2 are verified too, and rewritten by the login that proves them.
"""

import asyncio
import base64
import hashlib
import hmac
from functools import lru_cache
from typing import Protocol

import bcrypt
from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from app.core.config import SecuritySettings

NO_PASSWORD = "!"  # noqa: S105 - a hash that no scheme reads, so no password opens it
"""Of an account whose owner has not chosen a password."""

_BCRYPT_LIMIT = 72  # bytes; what plain bcrypt hashes of other systems were cut at


class Verifier(Protocol):
    """Reads the hashes that begin with `prefix`."""

    prefix: str

    def verify(self, password: str, stored: str) -> bool: ...


class Scheme(Verifier, Protocol):
    """Writes them too; `outdated` tells those of less cost than it writes now."""

    def hash(self, password: str) -> str: ...

    def decoy(self) -> str:
        """What no password opens, made without a hash; to verify it costs the same."""
        ...

    def outdated(self, stored: str) -> bool: ...


class BcryptSha256:
    prefix = "bcrypt_sha256$"

    def __init__(self, rounds: int) -> None:
        self._rounds = rounds

    def hash(self, password: str) -> str:
        salt = bcrypt.gensalt(self._rounds)
        return self.prefix + bcrypt.hashpw(self._digest(password), salt).decode()

    def decoy(self) -> str:
        return self.prefix + bcrypt.gensalt(self._rounds).decode() + "." * 31

    def verify(self, password: str, stored: str) -> bool:
        return _check_bcrypt(self._digest(password), stored.removeprefix(self.prefix))

    def outdated(self, stored: str) -> bool:
        _, _, rounds, _ = stored.removeprefix(self.prefix).split("$")
        return int(rounds) < self._rounds

    @staticmethod
    def _digest(password: str) -> bytes:
        return hashlib.sha256(password.encode()).hexdigest().encode()


class PlainBcrypt:
    """What other applications store; Django's own has the prefix `bcrypt$`."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix

    def verify(self, password: str, stored: str) -> bool:
        return _check_bcrypt(
            password.encode()[:_BCRYPT_LIMIT], stored.removeprefix("bcrypt$")
        )


class Argon2:
    """Argon2id with the library's defaults, RFC 9106's low-memory profile."""

    def __init__(self, prefix: str = "$argon2id$") -> None:
        self.prefix = prefix
        self._hasher = PasswordHasher()

    def hash(self, password: str) -> str:
        return self._hasher.hash(password)

    def decoy(self) -> str:
        hasher = self._hasher
        return (
            f"$argon2id$v=19$m={hasher.memory_cost},t={hasher.time_cost},"
            f"p={hasher.parallelism}${'A' * 22}${'A' * 43}"
        )

    def verify(self, password: str, stored: str) -> bool:
        try:
            return self._hasher.verify(
                "$" + stored[stored.index("argon2id$") :], password
            )
        except (Argon2Error, InvalidHashError, ValueError):
            return False

    def outdated(self, stored: str) -> bool:
        return self._hasher.check_needs_rehash(stored)


class DjangoPbkdf2:
    """`pbkdf2_sha256$rounds$salt$hash` and its SHA-1 sister."""

    def __init__(self, algorithm: str) -> None:
        self.prefix = f"pbkdf2_{algorithm}$"
        self._algorithm = algorithm

    def verify(self, password: str, stored: str) -> bool:
        try:
            _, rounds, salt, expected = stored.split("$")
            found = hashlib.pbkdf2_hmac(
                self._algorithm, password.encode(), salt.encode(), int(rounds)
            )
        except ValueError:
            return False
        return hmac.compare_digest(base64.b64encode(found).decode(), expected)


def _check_bcrypt(password: bytes, stored: str) -> bool:
    try:
        return bcrypt.checkpw(password, stored.encode())
    except ValueError:  # a damaged hash opens for nobody
        return False


class Passwords:
    """Hash and verify off the event loop, at most a few at once.

    Every hash costs about 0.2 s of a core, so more at once would only starve the
    replies that stream meanwhile.
    """

    def __init__(self, settings: SecuritySettings, *, at_once: int = 2) -> None:
        written: dict[str, Scheme] = {
            "bcrypt": BcryptSha256(settings.bcrypt_rounds),
            "argon2id": Argon2(),
        }
        self._current = written[settings.password_scheme]
        self._known: tuple[Verifier, ...] = (
            *written.values(),
            Argon2("argon2$argon2id$"),
            *(PlainBcrypt(p) for p in ("bcrypt$", "$2a$", "$2b$", "$2y$")),
            *(DjangoPbkdf2(a) for a in ("sha256", "sha1")),
        )
        self._gate = asyncio.Semaphore(at_once)
        # What an unknown account's password is held against: same scheme, same cost.
        self._decoy = self._current.decoy()

    async def hash(self, password: str) -> str:
        async with self._gate:
            return await asyncio.to_thread(self._current.hash, password)

    async def verify(self, password: str, stored: str | None) -> bool:
        """Do exactly one hash, whether there is something to compare with or not."""
        async with self._gate:
            return await asyncio.to_thread(self._verify, password, stored)

    def outdated(self, stored: str) -> bool:
        """Whether a login that proved this hash ought to have it rewritten."""
        return not stored.startswith(self._current.prefix) or self._current.outdated(
            stored
        )

    def _verify(self, password: str, stored: str | None) -> bool:
        for scheme in self._known:
            if stored is not None and stored.startswith(scheme.prefix):
                return scheme.verify(password, stored)
        self._current.verify(password, self._decoy)
        return False


@lru_cache(1)
def _common_passwords() -> frozenset[str]:
    # zxcvbn's lists: 30,000 passwords by frequency. Loaded by the first registration,
    # not at start: they take some megabytes.
    from zxcvbn.frequency_lists import FREQUENCY_LISTS  # noqa: PLC0415 - see above

    return frozenset(FREQUENCY_LISTS["passwords"])


def weakness(password: str, *personal: str | None) -> str | None:
    """Say why a password must not be taken; None where it may.

    `personal` are words of the account itself: its address and names.
    """
    lowered = password.lower()
    if lowered in _common_passwords():
        return "This password is among the most common ones: choose another."
    own = {part for word in personal if word for part in _parts(word.lower())}
    if lowered in own:
        return "A password must not be your own address or name: choose another."
    return None


def _parts(word: str) -> tuple[str, ...]:
    return (word, word.partition("@")[0], *word.split())
