from collections.abc import AsyncIterator

import pytest

from app.integrations.scanning.base import NoScanner, ScannerError
from app.integrations.scanning.clamd import Clamd
from tests.fakes.clamd import EICAR, FakeClamd


async def pieces(*content: bytes) -> AsyncIterator[bytes]:
    for piece in content:
        yield piece


async def test_what_is_clean_is_sent_whole_and_nothing_is_found() -> None:
    async with FakeClamd() as clamd:
        found = await Clamd(clamd.address).scan(pieces(b"a" * 300_000, b"b"))

    assert found is None
    assert clamd.streams == [b"a" * 300_000 + b"b"]


async def test_a_virus_is_named() -> None:
    async with FakeClamd() as clamd:
        found = await Clamd(clamd.address).scan(pieces(b"some", EICAR[:20], EICAR[20:]))

    assert found == "Eicar-Test-Signature"


async def test_what_clamd_does_not_take_is_no_clean_file() -> None:
    async with FakeClamd(most=1000) as clamd:
        with pytest.raises(ScannerError, match="did not take"):
            await Clamd(clamd.address).scan(pieces(*[b"a" * 900] * 9))


@pytest.mark.parametrize("address", ["127.0.0.1:9", "/nowhere/clamd.sock"])
async def test_a_scanner_that_is_away_finds_nothing_clean(address: str) -> None:
    with pytest.raises(ScannerError, match="does not answer"):
        await Clamd(address).scan(pieces(b"a"))


async def test_without_a_scanner_nothing_is_found() -> None:
    assert await NoScanner().scan(pieces(EICAR)) is None
