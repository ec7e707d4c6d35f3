"""Reads a client's JSON field by field; what nobody has read is refused by name.

Without Pydantic: a body may hold a hundred thousand messages, and what of it goes on to
a provider goes on as it came.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from app.core.exceptions import BadRequestError

Json = dict[str, Any]
_NOTHING: Any = object()


class InvalidFieldError(BadRequestError):
    """One wrong field: its path is dotted, as in `messages.0.content`."""

    code = "invalid_request"

    def __init__(self, path: str, message: str) -> None:
        told = f"{path}: {message}" if path else message
        super().__init__(told, errors=[{"path": path or "body", "message": message}])


class Fields:
    """A JSON object on its way to be understood.

    A field that is missing or null gives the default; without one it is required. Each
    reader raises InvalidFieldError for a value of another kind. `finish` refuses what
    is left, so that nothing is dropped in silence.
    """

    def __init__(self, value: Any, path: str = "") -> None:
        if not isinstance(value, dict):
            raise InvalidFieldError(path, "must be an object")
        self._value: Mapping[str, Any] = value
        self._path = path
        self._left = set(value)

    def path(self, name: str) -> str:
        return f"{self._path}.{name}" if self._path else name

    def wrong(self, name: str, message: str) -> InvalidFieldError:
        """The error for that field, for its reader to raise."""
        return InvalidFieldError(self.path(name), message)

    def any(self, name: str, default: Any = _NOTHING) -> Any:
        self._left.discard(name)
        value = self._value.get(name)
        if value is not None:
            return value
        if default is _NOTHING:
            raise self.wrong(name, "is required")
        return default

    def text(self, name: str, default: Any = _NOTHING) -> Any:
        return self._typed(name, default, lambda v: isinstance(v, str), "a string")

    def flag(self, name: str, default: Any = _NOTHING) -> Any:
        return self._typed(name, default, lambda v: isinstance(v, bool), "a boolean")

    def whole(self, name: str, default: Any = _NOTHING, *, least: int = 0) -> Any:
        return self._typed(
            name,
            default,
            lambda v: type(v) is int and v >= least,
            f"an integer, {least} or more",
        )

    def number(
        self, name: str, default: Any = _NOTHING, *, least: float = 0, most: float = 1
    ) -> Any:
        return self._typed(
            name,
            default,
            lambda v: type(v) in (int, float) and least <= v <= most,
            f"a number between {least:g} and {most:g}"
            if math.isfinite(most)
            else f"a number, {least:g} or more",
        )

    def choice(self, name: str, *choices: str, default: Any = _NOTHING) -> Any:
        several = f"one of {', '.join(choices)}" if choices[1:] else choices[0]
        return self._typed(name, default, lambda v: v in choices, several)

    def object(self, name: str, default: Any = _NOTHING) -> Any:
        """As `Fields`; a default as it is."""
        value = self.any(name, default)
        return value if value is default else Fields(value, self.path(name))

    def json(self, name: str, default: Any = _NOTHING) -> Any:
        """An object that is taken whole, as a tool's schema is."""
        return self._typed(name, default, lambda v: isinstance(v, dict), "an object")

    def items(self, name: str, default: Any = _NOTHING) -> Any:
        """A list as it is."""
        return self._typed(name, default, lambda v: isinstance(v, list), "a list")

    def objects(self, name: str, default: Any = _NOTHING) -> Iterator["Fields"]:
        """A list of objects, each as `Fields`."""
        for number, value in enumerate(self.items(name, default) or ()):
            yield Fields(value, f"{self.path(name)}.{number}")

    def refuse(self, name: str, why: str, *, but: tuple[Any, ...] = ()) -> None:
        """Raise where the field says more than nothing, or than one of `but`."""
        value = self.any(name, None)
        if value is not None and value not in but:
            raise self.wrong(name, why)

    def pass_over(self, *names: str) -> None:
        """Fields that say nothing about the answer, whoever gives it."""
        self._left.difference_update(names)

    def finish(self) -> None:
        """Raise for a field that nobody has read."""
        if self._left:
            raise self.wrong(min(self._left), "is not supported for this model here")

    def _typed(
        self, name: str, default: Any, fits: Callable[[Any], bool], kind: str
    ) -> Any:
        value = self.any(name, default)
        if value is not default and not fits(value):
            raise self.wrong(name, f"must be {kind}")
        return value
