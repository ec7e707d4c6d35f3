"""What was used and is not written yet, and how it is added to what a day counts."""

from collections import defaultdict
from collections.abc import Sequence
from datetime import date
from typing import Any, NamedTuple
from uuid import UUID

from uuid_utils.compat import uuid7

from app.core.statements import Script, Statement
from app.integrations.llm.base import Usage
from app.models import UsageDay
from app.services.credits.accounts import INSERTS

NO_KEY = UUID(int=0)
_KEYS = ("user_id", "day", "kind", "model", "key_id")
COUNTS = (
    "requests",
    "estimated",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "credits",
    "absorbed",
)


class Used(NamedTuple):
    """Whose usage, and of what: a row of `usage_days`."""

    user_id: UUID
    day: date
    kind: str
    model: str
    key_id: UUID


class Tally(defaultdict[Used, list[int]]):
    """Usage that is not written yet, as numbers in the order of `COUNTS`."""

    def __init__(self) -> None:
        super().__init__(lambda: [0] * len(COUNTS))

    def count(self, used: Used, usage: Usage, *, paid: int, absorbed: int) -> None:
        # One by one: it is on the path of every call, and a loop costs thrice as much.
        counts = self[used]
        counts[0] += 1
        counts[1] += usage.estimated
        counts[2] += usage.input_tokens
        counts[3] += usage.output_tokens
        counts[4] += usage.cache_read_tokens
        counts[5] += usage.cache_write_tokens
        counts[6] += paid
        counts[7] += absorbed

    def add(self, used: Used, counts: Sequence[int]) -> None:
        self[used] = [a + b for a, b in zip(self[used], counts, strict=True)]

    def without(self, key_ids: set[UUID]) -> tuple["Tally", "Tally"]:
        """What is not by these API keys, and what is."""
        others, theirs = Tally(), Tally()
        for used, counts in self.items():
            (theirs if used.key_id in key_ids else others)[used] = counts
        return others, theirs


def counting(tally: Tally) -> Script[None]:
    """Add to what is counted of each day."""
    if tally:
        yield _COUNT.each(
            [
                {
                    "id": uuid7(),
                    **used._asdict(),
                    **dict(zip(COUNTS, tally[used], strict=True)),
                }
                for used in sorted(tally)
            ]
        )


def _count(insert_: Any) -> Any:
    """Makes a day's row, or adds to it."""
    new = insert_(UsageDay)
    sums = {
        name: getattr(UsageDay, name) + getattr(new.excluded, name) for name in COUNTS
    }
    return new.on_conflict_do_update(index_elements=list(_KEYS), set_=sums)


_COUNT = Statement(_count(INSERTS["sqlite"]), postgresql=_count(INSERTS["postgresql"]))
