from uuid import uuid4

import pytest

from app.core.config import TurnSettings
from app.core.exceptions import OverloadedError, RateLimitedError
from app.services.chat.slots import Slots

ADA, BOB, EVE = uuid4(), uuid4(), uuid4()


@pytest.fixture
def slots() -> Slots:
    limits = {"MAX_RUNNING_TURNS": 3, "MAX_RUNNING_TURNS_PER_USER": 2}
    return Slots(TurnSettings.model_validate(limits))


def test_a_user_has_so_many_and_all_have_so_many(slots: Slots) -> None:
    with slots.taken(ADA), slots.taken(ADA):
        with pytest.raises(RateLimitedError) as caught, slots.taken(ADA):
            pass
        with slots.taken(BOB), pytest.raises(OverloadedError), slots.taken(EVE):
            pass
        with slots.taken(EVE):
            pass

    assert caught.value.code == "too_many_turns"
    assert caught.value.headers["Retry-After"]
    assert not slots._taken


def test_a_turn_that_begins_keeps_its_slot_until_its_end(slots: Slots) -> None:
    with slots.taken(ADA), slots.taken(ADA) as slot:
        slot.keep()
    with slots.taken(ADA), pytest.raises(RateLimitedError), slots.taken(ADA):
        pass
    slot.give_back()
    with slots.taken(ADA), slots.taken(ADA):
        pass

    assert not slots._taken


def test_a_turn_that_fails_to_begin_has_taken_nothing(slots: Slots) -> None:
    for _ in range(9):
        with pytest.raises(KeyError), slots.taken(ADA):
            raise KeyError

    assert not slots._taken
