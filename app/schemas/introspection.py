from typing import Annotated, Literal
from uuid import UUID

from pydantic import BaseModel, Field, StringConstraints

from app.schemas.base import Text
from app.schemas.usage import UsageLimits

MOST_REPORTS = 1000
MOST_AMOUNT = 10**12


class IntrospectionForm(BaseModel):
    """The form of RFC 7662, and where the token came from."""

    token: Annotated[Text, Field(min_length=1, max_length=4096)]
    token_type_hint: Annotated[Text, Field(max_length=100)] | None = Field(
        None, description="Is not needed: tokens tell their type by themselves."
    )
    client_ip: Annotated[Text, Field(max_length=45)] | None = Field(
        None,
        description="The address that the token came from: an API key that is "
        "confined to networks is not active without it.",
    )


class Introspection(BaseModel):
    """RFC 7662, section 2.2; of a token that is not active nothing else is told."""

    active: bool
    sub: UUID | None = Field(None, description="The account's id.")
    sid: UUID | None = Field(
        None, description="The id of the session or API key, as invalidations name it."
    )
    kind: Literal["user"] | None = None
    username: str | None = None
    plan: str | None = None
    scope: str | None = Field(
        None, description="What an API key is confined to; * of who is logged in."
    )
    exp: int | None = Field(None, description="Seconds since the epoch.")
    limits: UsageLimits | None = Field(None, description="What is left, and may be.")


class UsageEntry(BaseModel):
    """`credits` are paid from the user's balance; other kinds are counted."""

    subject: UUID = Field(description="`sub` of the introspection.")
    kind: Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.:-]{0,63}$")]
    amount: Annotated[int, Field(ge=1, le=MOST_AMOUNT)]
    id: UUID | None = Field(
        None, description="A report that is sent again with the same id counts once."
    )


class UsageEntries(BaseModel):
    reports: Annotated[list[UsageEntry], Field(min_length=1, max_length=MOST_REPORTS)]


class UsageBooked(BaseModel):
    booked: int = Field(description="Reports that were new.")
    unknown: list[UUID] = Field(
        description="Subjects without an account: what was reported of them is dropped."
    )
