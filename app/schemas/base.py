import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    StringConstraints,
)
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")


def _storable(value: str) -> str:
    # PostgreSQL cannot store it, and no text has a use for it.
    if "\0" in value:
        raise ValueError("must not contain the NUL character")
    try:
        value.encode()
    except UnicodeEncodeError:  # JSON's "\ud800" can be written, but means nothing
        raise ValueError("must not contain half of a surrogate pair") from None
    return value


Text = Annotated[str, AfterValidator(_storable)]
"""Text as every database can store it."""

Line = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1),
    AfterValidator(_storable),
]
"""Text that says something, without white space around it."""


@dataclass(frozen=True)
class Shape:
    """Text of a pattern: programs read the pattern, and who gets it wrong `words`."""

    pattern: str
    words: str

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_after_validator_function(
            self._check, handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return handler(schema) | {"pattern": self.pattern}

    def _check(self, value: str) -> str:
        if re.fullmatch(self.pattern, value) is None:
            raise ValueError(self.words)
        return value


class ReadModel(BaseModel):
    """What an endpoint answers, made from an ORM object of the same field names."""

    model_config = ConfigDict(from_attributes=True)


class Page(BaseModel, Generic[T]):
    """`next_cursor` asks for what follows; null on the last page."""

    items: Sequence[T]
    next_cursor: str | None = None
