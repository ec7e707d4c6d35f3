"""One contract, two buses: in the process, and over a real Redis."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from app.core.bus import Bus, LocalBus, RedisBus
from app.core.config import RedisSettings


class Heard(list[bytes]):
    """Collects messages; `reach` waits for so many."""

    def __init__(self) -> None:
        super().__init__()
        self._changed = asyncio.Event()

    def hear(self, message: bytes) -> None:
        self.append(message)
        self._changed.set()

    async def reach(self, count: int) -> list[bytes]:
        async with asyncio.timeout(10):
            while len(self) < count:
                await self._changed.wait()
                self._changed.clear()
        return list(self)


@pytest.fixture(params=["local", "redis"])
def make_bus(request: pytest.FixtureRequest) -> Callable[[], Bus]:
    if request.param == "local":
        only = LocalBus()
        return lambda: only
    url = request.getfixturevalue("redis_url")
    settings = RedisSettings.model_validate({"REDIS_URL": url})
    return lambda: RedisBus(settings)


@pytest.fixture
async def buses(make_bus: Callable[[], Bus]) -> AsyncIterator[tuple[Bus, Bus]]:
    """The ends of two processes; in the embedded profile, both are the same."""
    one, other = make_bus(), make_bus()
    await one.open()
    await other.open()
    yield one, other
    await one.close()
    await other.close()


async def test_a_message_reaches_every_listener_once(buses: tuple[Bus, Bus]) -> None:
    one, other = buses
    heard, also, elsewhere = Heard(), Heard(), Heard()
    await one.listen("a", heard.hear)
    await other.listen("a", also.hear)
    await other.listen("b", elsewhere.hear)

    for n in range(50):
        one.say("a", b"%d" % n)

    expected = [b"%d" % n for n in range(50)]
    assert await heard.reach(50) == expected
    assert await also.reach(50) == expected
    assert elsewhere == []


async def test_who_stops_listening_hears_no_more(buses: tuple[Bus, Bus]) -> None:
    one, other = buses
    gone, still = Heard(), Heard()
    await other.listen("c", gone.hear)
    await other.listen("c", still.hear)
    one.say("c", b"1")
    await still.reach(1)

    await other.unlisten("c", gone.hear)
    one.say("c", b"2")
    await still.reach(2)
    await other.unlisten("c", still.hear)

    assert gone == [b"1"]


async def test_a_latecomer_reads_a_log_from_its_start(buses: tuple[Bus, Bus]) -> None:
    one, other = buses
    heard = Heard()
    await one.listen("log", heard.hear)
    one.append("log", b"1")
    one.append("log", b"2")
    await heard.reach(2)

    assert await other.recall("log") == [b"1", b"2"]
    assert await other.recall("no log") == []


async def test_who_appends_hears_when_the_log_has_it(buses: tuple[Bus, Bus]) -> None:
    """TRUST F1: whatever was shown then is there though this process dies."""
    one, other = buses
    there = asyncio.Event()
    one.append("kept", b"1")
    one.append("kept", b"2", done=there.set)

    async with asyncio.timeout(10):
        await there.wait()

    assert await other.recall("kept") == [b"1", b"2"]


async def test_both_are_reliable_while_all_is_well(buses: tuple[Bus, Bus]) -> None:
    assert all(bus.reliable for bus in buses)


async def test_without_redis_nothing_waits_and_nothing_fails() -> None:
    """TRUST F6."""
    settings = RedisSettings.model_validate({"REDIS_URL": "redis://127.0.0.1:1/0"})
    bus = RedisBus(settings)
    gaps = Heard()
    bus.on_gap(lambda: gaps.hear(b"gap"))
    await bus.open()
    await bus.listen("a", Heard().hear)
    bus.say("a", b"1")
    given_up = asyncio.Event()
    bus.append("a", b"2", done=given_up.set)

    assert not bus.reliable
    assert await bus.recall("a") == []
    await gaps.reach(1)
    async with asyncio.timeout(10):
        await given_up.wait()
    await bus.close()
