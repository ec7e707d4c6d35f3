"""Names for background work, so that services ask for it without importing it.

`app.tasks` registers the functions under their names; `app.services.job` writes the
rows that ask for them; a worker brings the two together.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

TaskFunction = Callable[..., Awaitable[None]]
"""Called as `function(runtime, **args)`; it must be safe to run twice."""


@dataclass(frozen=True, slots=True)
class Task:
    name: str
    function: TaskFunction
    every: timedelta | None = None
    """For scheduled work: how often. Each moment is run once, whoever schedules."""
    at_most: int | None = None
    """How many of it one worker runs at once, so that slow ones leave it free."""


_tasks: dict[str, Task] = {}


def task(
    name: str, *, every: timedelta | None = None, at_most: int | None = None
) -> Callable[[TaskFunction], TaskFunction]:
    def register(function: TaskFunction) -> TaskFunction:
        if name in _tasks:
            raise ValueError(f"two tasks are named {name}")
        _tasks[name] = Task(name, function, every, at_most)
        return function

    return register


def get_task(name: str) -> Task:
    """Raises KeyError for a name that no task has."""
    return _tasks[name]


def at_most(name: str) -> int | None:
    """None where there is no limit, and for a name that no task has (any more)."""
    found = _tasks.get(name)
    return found.at_most if found else None


def is_scheduled(name: str) -> bool:
    """False for a name that no task has (any more)."""
    found = _tasks.get(name)
    return found is not None and found.every is not None


def scheduled_tasks() -> list[Task]:
    return [t for t in _tasks.values() if t.every is not None]


def retry_delay(attempt: int) -> timedelta:
    """Seconds before the next try: 2, 8, 32, ... at most an hour."""
    return timedelta(seconds=min(2 * 4 ** (attempt - 1), 3600))
