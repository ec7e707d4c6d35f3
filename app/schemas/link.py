from typing import Annotated, Literal

from pydantic import BaseModel, Field

from app.schemas.user import Email, NewPassword


class Accepted(BaseModel):
    """What is mailed, if anything, is for the owner of the address alone to know."""

    status: Literal["accepted"] = "accepted"


class AddressForm(BaseModel):
    email: Email


class LinkForm(BaseModel):
    token: Annotated[str, Field(max_length=256, description="From the mailed link.")]


class Confirmation(LinkForm):
    password: Annotated[
        str | None,
        Field(
            max_length=256,
            description="Of the sign-up or the account; an access token of the "
            "account does as well.",
        ),
    ] = None


class PasswordReset(LinkForm):
    password: NewPassword
