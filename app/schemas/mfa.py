from pydantic import BaseModel, Field

from app.schemas.base import ReadModel
from app.schemas.user import Otp


class OtpForm(BaseModel):
    otp: Otp


class MfaRead(ReadModel):
    totp: bool
    recovery_codes_left: int
    required: bool = Field(description="Whether this installation asks for it.")


class EnrolmentRead(ReadModel):
    """Shown once: whoever has the secret has the second factor."""

    secret: str = Field(description="For an app that takes no QR code.")
    uri: str
    qr_svg: str = Field(description="The URI as a QR code, an SVG element.")


class RecoveryCodesRead(BaseModel):
    """Shown once; each is good for one login."""

    recovery_codes: list[str]
