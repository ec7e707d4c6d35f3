"""Whether what a model is sent always fits, and what assembling it costs.

    python -m benchmarks.context [--cases 10000] [--seed 1] [--rounds 5] [--json]

Random windows, histories, instructions and documents are assembled. Whatever is sent
must stay under the window by the estimate of the whole request and of the body that a
provider gets; instructions and the question are in it, word for word; and what is
refused does not fit.
"""

import random
import time
from collections import Counter
from collections.abc import Callable

from uuid_utils.compat import uuid7

from app.services.chat.history import Said
from benchmarks.context_cases import Case, case, faults, is_too_long
from benchmarks.harness import Report, parser


def history(turns: int) -> list[Said]:
    """A plain chat, newest first."""
    words = "So it is with all things that are counted one by one. " * 10
    content = [{"type": "text", "text": words}]
    return [
        Said(uuid7(), uuid7(), "assistant" if n % 2 else "user", "complete", content)
        for n in range(2 * turns - 1)
    ]


def microseconds(work: Callable[[], object], *, rounds: int) -> list[float]:
    """CPU of one call, in so many rounds."""
    found, times = [], 200
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(times):
            work()
        found.append((time.process_time() - begun) / times * 1e6)
    return found


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--cases", type=int, default=10_000)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    report = Report(options)
    chance = random.Random(options.seed)  # noqa: S311 - no secret
    wrong = Counter[str]()
    sent = 0
    for _ in range(options.cases):
        turn = case(chance)
        wrong.update(faults(turn))
        sent += not is_too_long(turn)
    report.tell(f"turns that fit, of {options.cases}", sent)
    report.tell("faults", wrong.total(), at_most=0)
    for fault, count in wrong.items():
        report.tell(fault, count, at_most=0)
    for turns in (1, 10, 100):
        turn = Case(history(turns), (), 200_000, 4096)
        costs = microseconds(turn.assemble, rounds=options.rounds)
        report.tell(f"CPU us of a plain chat's context, {turns} turns", min(costs))
    report.end()


if __name__ == "__main__":
    main()
