from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from app.schemas.apikey import Expiry, KeyForm, KeyName, Networks, sorted_set

ServiceScope = Literal["introspect", "report"]
ServiceScopes = Annotated[
    list[ServiceScope],
    Field(
        min_length=1,
        description="introspect: ask whose a token is and what it may do. report: "
        "book what users used up.",
    ),
    AfterValidator(sorted_set),
]


class ServiceKeyCreate(KeyForm):
    """The name is that of the application."""

    name: KeyName
    scopes: ServiceScopes
    allowed_ips: Networks = Field(default_factory=list)
    expires_at: Expiry | None = None
