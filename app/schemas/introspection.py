from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, Discriminator, Field, Tag

from app.schemas.base import Shape, Text
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
    kind: Annotated[
        str,
        Shape(
            r"^[a-z][a-z0-9_.:-]{0,63}$",
            "must be 1 to 64 small letters, digits or any of _.:- and begin with a "
            "letter",
        ),
    ]
    amount: Annotated[int, Field(ge=1, le=MOST_AMOUNT)]
    id: UUID | None = Field(
        None, description="A report that is sent again with the same id counts once."
    )


class UsageEntries(BaseModel):
    reports: Annotated[list[UsageEntry], Field(min_length=1, max_length=MOST_REPORTS)]


def _one_or_many(value: Any) -> str:
    return "many" if isinstance(value, dict) and "reports" in value else "one"


UsageReport = Annotated[
    Annotated[UsageEntry, Tag("one")] | Annotated[UsageEntries, Tag("many")],
    Discriminator(_one_or_many),
]
"""Told apart before they are looked at, so that what is wrong is told of one alone."""


class UsageBooked(BaseModel):
    booked: int = Field(description="Reports that were new.")
    unknown: list[UUID] = Field(
        description="Subjects without an account: what was reported of them is dropped."
    )
