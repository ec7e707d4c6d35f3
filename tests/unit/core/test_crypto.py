import base64

import pytest

from app.core.config import SecuritySettings
from app.core.crypto import Crypto, CryptoError

OLD, NEW, OTHER = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in range(3))
PLACE = "users.totp_secret:1"


def crypto(keys: str | None, secret_key: str = "a secret key") -> Crypto:
    return Crypto(
        SecuritySettings.model_validate(
            {"SECRET_KEY": secret_key, "ENCRYPTION_KEY": keys}
        )
    )


@pytest.mark.parametrize("text", ["", "words", "ein Wort für Ω 🜁", "a\0b", "\0"])
def test_what_is_sealed_opens_again(text: str) -> None:
    """TRUST D1."""
    sealed = crypto(OLD).seal(text, place=PLACE)

    assert crypto(OLD).open(sealed, place=PLACE) == text
    assert not text or text not in sealed


def test_old_rows_stay_readable_after_a_rotation() -> None:
    """TRUST D1."""
    sealed = crypto(OLD).seal("words", place=PLACE)
    rotated = crypto(f"{NEW}, {OLD}")

    assert rotated.open(sealed, place=PLACE) == "words"
    assert not rotated.is_newest(sealed)
    assert rotated.is_newest(rotated.seal("words", place=PLACE))


@pytest.mark.parametrize("place", ["users.totp_secret:2", "users.name:1", ""])
def test_what_was_moved_to_another_place_does_not_open(place: str) -> None:
    """TRUST D1."""
    sealed = crypto(OLD).seal("words", place=PLACE)

    with pytest.raises(CryptoError, match=r"sealed for users\.totp_secret:1"):
        crypto(OLD).open(sealed, place=place)


def test_what_was_changed_does_not_open() -> None:
    sealed = crypto(OLD).seal("words", place=PLACE)
    changed = sealed[:-10] + ("A" if sealed[-10] != "A" else "B") + sealed[-9:]

    for wrong in (changed, "", "no token", "é"):
        with pytest.raises(CryptoError, match="ENCRYPTION_KEY") as caught:
            crypto(OLD).open(wrong, place=PLACE)
        assert "words" not in str(caught.value)


def test_without_its_key_nothing_opens() -> None:
    sealed = crypto(OLD).seal("words", place=PLACE)

    with pytest.raises(CryptoError):
        crypto(OTHER).open(sealed, place=PLACE)


def test_development_needs_no_key_of_its_own() -> None:
    sealed = crypto(None).seal("words", place=PLACE)

    assert crypto(None).open(sealed, place=PLACE) == "words"
    with pytest.raises(CryptoError):
        crypto(None, "another secret key").open(sealed, place=PLACE)
