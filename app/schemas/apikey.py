import re
from datetime import datetime
from ipaddress import ip_network
from typing import Annotated
from uuid import UUID

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
)

from app.core.database import utcnow
from app.schemas.base import Line, ReadModel, Text
from app.schemas.plan import Large, ModelPatterns, Small

SCOPES = {
    "chat": "have models answer; create, change and delete chats and messages",
    "embeddings": "have texts embedded",
    "models": "see the models on offer",
    "files": "see, upload and delete files",
    "finetune": "see and change datasets, and tune models with them",
    "read": "see chats, messages, usage, the profile, models and files",
}
"""What a key may be allowed to do here; everything else needs a login."""

MOST_GRACE = 7 * 24 * 3600  # seconds
MOST_CACHED = 24 * 3600  # seconds
MOST_LEAKED = 100
"""Keys in one report."""

_FOREIGN = re.compile(r"ext:[a-z0-9][a-z0-9._:-]{0,58}")


def _scope(value: str) -> str:
    if value not in SCOPES and not _FOREIGN.fullmatch(value):
        raise ValueError(
            f"must be one of {', '.join(SCOPES)}, or a permission of an external "
            "application such as ext:reports"
        )
    return value


def _network(value: str) -> str:
    try:
        return str(ip_network(value, strict=False))
    except ValueError:
        raise ValueError(
            "is no address or network: write 203.0.113.7, 203.0.113.0/24 or "
            "2001:db8::/32"
        ) from None


def _in_future(value: datetime) -> datetime:
    if value <= utcnow():
        raise ValueError("must be in the future")
    return value


def sorted_set(values: list[str]) -> list[str]:
    return sorted(set(values))


KeyName = Annotated[Line, Field(max_length=100)]
Scopes = Annotated[
    list[Annotated[str, Field(max_length=64), AfterValidator(_scope)]],
    Field(min_length=1, max_length=50),
    AfterValidator(sorted_set),
]
Networks = Annotated[
    list[Annotated[str, Field(max_length=50), AfterValidator(_network)]],
    Field(
        max_length=50,
        description="From where the key may be used, as addresses or networks; "
        "an empty list is from everywhere.",
    ),
    AfterValidator(sorted_set),
]
Expiry = Annotated[AwareDatetime, AfterValidator(_in_future)]


class ApiKeyLimits(BaseModel):
    """Below those of the user; null is no limit besides them, and no cache."""

    models: ModelPatterns | None = None
    requests_per_minute: Annotated[Small, Field(ge=1)] | None = Field(
        None, description="Calls of models."
    )
    tokens_per_minute: Annotated[Small, Field(ge=1)] | None = None
    daily_credit_limit: Large | None = Field(
        None,
        description="What its calls may cost in a day, which begins at 0:00 UTC, in "
        "millionths of a US dollar.",
    )
    cache_seconds: Annotated[int, Field(ge=1, le=MOST_CACHED)] | None = Field(
        None,
        description="For how long equal calls of the gateway get the same answer, "
        "which costs nothing again; at most a day.",
    )


class KeyForm(BaseModel):
    # A limit that is misspelt must not be taken for set.
    model_config = ConfigDict(extra="forbid")


class ApiKeyCreate(ApiKeyLimits, KeyForm):
    """Without `scopes` it may do all that keys can; without `expires_at` it lasts."""

    name: KeyName
    scopes: Scopes = Field(default_factory=lambda: list(SCOPES))
    allowed_ips: Networks = Field(default_factory=list)
    expires_at: Expiry | None = None


class ApiKeyUpdate(ApiKeyLimits, KeyForm):
    """Fields that are left out stay as they are; null takes a limit or cache away."""

    name: KeyName | None = None
    scopes: Scopes | None = None
    allowed_ips: Networks | None = None
    expires_at: Expiry | None = None


class KeyRotation(KeyForm):
    grace_seconds: Annotated[int, Field(ge=0, le=MOST_GRACE)] = Field(
        0, description="For how long the key of before works on, at most 7 days."
    )


class LeakReport(BaseModel):
    """What was found. Whether it is a key at all need not be known."""

    key: Text | None = None
    keys: list[Text] = Field(default_factory=list, max_length=MOST_LEAKED)
    url: Annotated[Line, Field(max_length=2000)] | None = Field(
        None, description="Where it was found."
    )

    @property
    def texts(self) -> list[str]:
        return self.keys if self.key is None else [*self.keys, self.key]


class KeyRead(ReadModel):
    id: UUID
    name: str
    prefix: str = Field(description="How the key begins.")
    scopes: list[str]
    allowed_ips: list[str]
    created_at: datetime
    expires_at: datetime | None
    last_used_at: datetime | None = Field(description="To the minute.")


class KeyCreated(KeyRead):
    key: str = Field(description="The key itself: it is shown here, and never again.")


class PreviousKeyRead(ReadModel):
    prefix: str
    works_until: datetime = Field(description="Or until the key itself expires.")


class _Rotated(BaseModel):
    previous: PreviousKeyRead | None = Field(
        None, description="The key of before a rotation, while it still works."
    )


class ApiKeyRead(ApiKeyLimits, _Rotated, KeyRead):
    """A key of a user."""


class ApiKeyCreated(ApiKeyLimits, _Rotated, KeyCreated):
    """The same with the key itself."""
