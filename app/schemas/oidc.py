from typing import Annotated

from pydantic import BaseModel, Field

from app.schemas.user import Otp


class ProvidersRead(BaseModel):
    """The names of the identity providers that one can log in by."""

    items: list[str]


class OidcReturn(BaseModel):
    """What a provider sends a browser back with: a code, or an error of its own."""

    state: Annotated[str, Field(max_length=200)]
    code: Annotated[str, Field(max_length=4096)] | None = None


class OidcExchange(BaseModel):
    code: Annotated[str, Field(max_length=200)]
    otp: Otp | None = None
