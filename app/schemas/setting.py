from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.base import Text


class SettingsUpdate(BaseModel):
    """Fields that are left out stay as they are; null is the default again.

    Each field is a setting's variable in small letters, and takes what that takes.
    """

    model_config = ConfigDict(extra="forbid")

    default_model: Annotated[Text, Field(max_length=200)] | None = None
    max_output_tokens: int | None = None
    rate_limits: Annotated[Text, Field(max_length=2000)] | None = None
    message_log_text: bool | None = None
    message_log_days: float | None = None
    deleted_user_days: float | None = None


class SettingRead(BaseModel):
    name: str
    variable: str = Field(description="By which the environment or .env sets it.")
    value: Any
    default: Any
    source: Literal["environment", "database", "default"] = Field(
        description="What the environment or .env sets cannot be changed here."
    )
    description: str
