from datetime import date, datetime
from typing import Literal
from uuid import UUID

from pydantic import BaseModel, Field

UsageGroup = Literal["day", "kind", "model", "key"]


class UsageRead(BaseModel):
    """What calls came to; `day`, `kind`, `model`, `key` where it is grouped by them."""

    day: date | None = None
    kind: str | None = Field(None, description="chat, title, gateway, ...")
    model: str | None = None
    key: UUID | None = Field(None, description="The API key; null for none.")
    requests: int
    estimated: int = Field(
        description="Requests whose figures are ours, for the provider sent none."
    )
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int
    cache_write_tokens: int
    credits: int = Field(description="Millionths of a US dollar.")


class UsageSummary(BaseModel):
    """`from` and `to` are days, both included."""

    from_: date = Field(serialization_alias="from")
    to: date
    items: list[UsageRead]
    total: UsageRead


class Allowance(BaseModel):
    """Null is no limit."""

    limit: int | None
    used: int
    remaining: int | None
    resets_at: datetime


class CreditAllowance(BaseModel):
    """In credits, millionths of a US dollar.

    `monthly` is what the balance is filled up to when a month begins; null is no
    limit, whatever the balance.
    """

    monthly: int | None
    balance: int
    resets_at: datetime


class UsageLimits(BaseModel):
    """Null is no limit. What was used in the last second may be missing."""

    plan: str
    conversations: Allowance = Field(description="Messages sent to a model today.")
    credits: CreditAllowance
    requests_per_minute: int | None
    tokens_per_minute: int | None
    storage_bytes: int | None
    storage_used: int = Field(description="Bytes of all files.")
    file_bytes: int | None
    project_tokens: int | None
    models: list[str] | None = Field(
        description="Names of models, in which * stands for any characters."
    )
