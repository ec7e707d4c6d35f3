from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Need:
    """Credits and conversations: what is asked for, or what there is."""

    credits: int = 0
    conversations: int = 0

    @property
    def nothing(self) -> bool:
        return self.credits <= 0 and self.conversations <= 0
