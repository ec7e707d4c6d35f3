from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from email_validator import EmailNotValidError, validate_email
from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from app.schemas.base import Line, ReadModel, Shape, Text


def _address(value: str) -> str:
    try:
        # Addresses of an intranet (someone@host.local) are as good as others here.
        checked = validate_email(
            value, check_deliverability=False, globally_deliverable=False
        )
    except EmailNotValidError as error:
        raise ValueError(str(error)) from error
    return checked.normalized.lower()


Email = Annotated[str, Field(max_length=254), AfterValidator(_address)]
Username = Annotated[
    str,
    StringConstraints(strip_whitespace=True, to_lower=True),
    Shape(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{2,31}$",
        "must be 3 to 32 letters, digits, dots, dashes or underscores, and begin with "
        "a letter or a digit",
    ),
    Field(description="3 to 32 letters, digits, dots, dashes, underscores."),
]
NewPassword = Annotated[
    str, Field(min_length=8, max_length=256, description="8 to 256 characters.")
]
FullName = Annotated[Line, Field(max_length=200)]


class UserCreate(BaseModel):
    email: Email
    password: NewPassword
    username: Username | None = None
    full_name: FullName | None = None


class UserUpdate(BaseModel):
    """Fields that are left out stay as they are."""

    username: Username | None = None
    full_name: FullName | None = None


class UserRead(ReadModel):
    id: UUID
    email: str
    email_verified_at: datetime | None
    username: str | None
    full_name: str | None
    status: str
    created_at: datetime


LoginName = Annotated[Text, Field(max_length=320, description="E-mail or username.")]
GivenPassword = Annotated[str, Field(max_length=1024)]
Otp = Annotated[
    str,
    Field(max_length=64, description="A code of the authenticator app, or to recover."),
]


class Login(BaseModel):
    login: LoginName
    password: GivenPassword
    otp: Otp | None = None


class PasswordForm(BaseModel):
    """OAuth 2.0's form for a password (RFC 6749, section 4.3.2)."""

    grant_type: Literal["password"] = "password"
    username: LoginName
    password: GivenPassword
    otp: Otp | None = None


class RefreshRequest(BaseModel):
    refresh_token: Annotated[str, Field(max_length=256)]


class TokenPair(BaseModel):
    access_token: str
    refresh_token: str
    token_type: Literal["bearer"] = "bearer"  # noqa: S105 - the kind, no secret
    expires_in: int = Field(description="Seconds that the access token lives.")


class PasswordChange(BaseModel):
    current_password: GivenPassword
    new_password: NewPassword
    end_other_sessions: bool = False


class SessionRead(ReadModel):
    id: UUID
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ip: str | None
    user_agent: str | None
    current: bool = Field(description="Whether this request belongs to it.")
