"""How many turns may run at once, in a process and for one user."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from app.core.config import TurnSettings
from app.core.exceptions import OverloadedError, RateLimitedError

_RETRY_SECONDS = 2


class Slot:
    """The right to run one turn."""

    def __init__(self, slots: "Slots", user_id: UUID) -> None:
        self._slots = slots
        self._user_id = user_id
        self.kept = False
        """Whether a turn has it, which gives it back at its end."""

    def keep(self) -> None:
        self.kept = True

    def give_back(self) -> None:
        self._slots.give_back(self._user_id)


class Slots:
    """Taken before the first wait: sends side by side cannot pass the limits."""

    def __init__(self, settings: TurnSettings) -> None:
        self._most = settings.max_running
        self._most_of_a_user = settings.max_running_per_user
        self._taken: Counter[UUID] = Counter()

    @contextmanager
    def taken(self, user_id: UUID) -> Iterator[Slot]:
        """A slot for the block, and beyond it where a turn keeps it.

        Raises OverloadedError, or RateLimitedError for a user who has too many.
        """
        if self._taken.total() >= self._most:
            raise OverloadedError("Too many replies are being written just now")
        if self._taken[user_id] >= self._most_of_a_user:
            raise RateLimitedError(
                f"You have {self._most_of_a_user} replies being written: wait for the "
                "end of one, or stop it.",
                code="too_many_turns",
                headers={"Retry-After": str(_RETRY_SECONDS)},
            )
        self._taken[user_id] += 1
        slot = Slot(self, user_id)
        try:
            yield slot
        finally:
            if not slot.kept:
                slot.give_back()

    def give_back(self, user_id: UUID) -> None:
        self._taken[user_id] -= 1
        if self._taken[user_id] <= 0:
            del self._taken[user_id]
