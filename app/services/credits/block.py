"""What this process has leased, and may spend without asking the database."""

from abc import ABC, abstractmethod
from asyncio import Event, Task, timeout
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncSession

from app.services.credits.need import Need, Taken

_REFUSED_SECONDS = 1
"""How long a refusal of the database stands for those who ask next."""


@dataclass(slots=True, eq=False, kw_only=True)
class Block(ABC):
    """Credits of a lease: `free`, `reserved` and `spent` are what it holds.

    While it is filled or written, the other waits. A `lost` one has been taken back.
    """

    used_at: float
    free: int = 0
    reserved: int = 0
    spent: int = 0
    leased: bool = False
    lost: bool = False
    recalled: bool = False
    writing: bool = False
    filling: Task[None] | None = None
    refused: tuple[float, Need] | None = None
    changed: Event = field(default_factory=Event)

    @property
    @abstractmethod
    def id(self) -> UUID:
        """Whose it is: a user's, or an API key's."""

    @property
    @abstractmethod
    def spare(self) -> bool:
        """Whether there is something that others could have."""

    @abstractmethod
    async def lease(
        self, session: AsyncSession, holder_id: UUID, short: Need, now: datetime
    ) -> Taken:
        """Ask the database for more; raises HolderLostError."""

    @abstractmethod
    def fill(self, taken: Taken) -> None:
        """Have what was asked for."""

    @abstractmethod
    def refuse(self, short: Need, *, clock: float, now: datetime) -> None:
        """Raise where the database has just said that there is less than that."""

    def known_left(self, clock: float) -> Need | None:
        """What the database said, where it has refused just now."""
        if self.refused is None or clock > self.refused[0]:
            return None
        return self.refused[1]

    def was_refused(self, left: Need, clock: float) -> None:
        self.refused = (clock + _REFUSED_SECONDS, left)

    async def has_changed(self, seconds: float) -> bool:
        """Wait so long for others to give something back."""
        if seconds <= 0:
            return False
        try:
            async with timeout(seconds):
                await self.changed.wait()
        except TimeoutError:
            return False
        self.changed.clear()
        return True

    def reserve(self, amount: int) -> None:
        self.free -= amount
        self.reserved += amount

    def give_back(self, reserved: int, *, charged: int) -> None:
        self.reserved -= reserved
        self.spent += charged
        self.free += reserved - charged
