from pydantic import Field

from app.core.config.base import Group, List


class CorsSettings(Group):
    origins: List = Field(
        (),
        alias="CORS_ORIGINS",
        description="Origins of other sites that may call the API, comma separated.",
    )
    methods: List = Field(
        ("GET", "POST", "PUT", "PATCH", "DELETE"),
        alias="CORS_METHODS",
        description="Methods they may use.",
    )
    headers: List = Field(
        ("Authorization", "Content-Type", "Idempotency-Key", "Last-Event-ID"),
        alias="CORS_HEADERS",
        description="Request headers they may send.",
    )
    credentials: bool = Field(
        False,
        alias="CORS_CREDENTIALS",
        description="Whether they may send cookies; never with the origin *.",
    )
