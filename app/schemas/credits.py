from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import AfterValidator, BaseModel, Field

from app.schemas.base import Line, ReadModel

_MOST = 10**15
"""A thousand million dollars: sums of it fit into every column."""


def _something(amount: int) -> int:
    if amount == 0:
        raise ValueError("must not be 0")
    return amount


class CreditAdjustment(BaseModel):
    """What is added to a balance, or taken from it where it is negative."""

    amount: Annotated[int, Field(ge=-_MOST, le=_MOST), AfterValidator(_something)] = (
        Field(description="Credits, millionths of a US dollar.")
    )
    note: Annotated[Line, Field(max_length=200)] = Field(description="Why.")


class CreditEntryRead(ReadModel):
    """A line of the ledger; the balance is the sum of them all."""

    id: UUID
    kind: str = Field(description="grant, usage or adjustment.")
    amount: int
    period: str | None = Field(description="The month that a grant is for.")
    note: str | None
    created_at: datetime
