"""Time that a test turns by itself."""

from dataclasses import dataclass, field


@dataclass
class Clock:
    now: float = 1000.0
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
