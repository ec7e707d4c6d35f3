from datetime import datetime
from typing import Annotated
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from app.schemas.base import Line, ReadModel, Shape

_MOST = 2**31 - 1

RouteName = Annotated[
    str,
    Shape(
        r"^[A-Za-z0-9][A-Za-z0-9._:@-]*(/[A-Za-z0-9][A-Za-z0-9._:@-]*)*$",
        "must be made of letters, digits and . _ : @ -, in parts with / between them",
    ),
    Field(
        max_length=200,
        description="What clients name as a model; no provider and a slash first.",
    ),
]
NamedModel = Annotated[Line, Field(max_length=200)]
PerMinute = Annotated[int, Field(ge=1, le=_MOST)]


class DeploymentGiven(ReadModel):
    model_config = ConfigDict(from_attributes=True, extra="forbid")

    model: NamedModel = Field(description="provider/id, as GET /models lists it.")
    weight: int = Field(
        1,
        ge=1,
        le=1000,
        description="How often it is first among those of its priority.",
    )
    priority: int = Field(0, ge=0, le=1000, description="The least goes first.")
    requests_per_minute: PerMinute | None = Field(
        None, description="What each process asks of it at most; null is no limit."
    )
    tokens_per_minute: PerMinute | None = None
    timeout_seconds: float | None = Field(
        None,
        gt=0,
        le=3600,
        description="How long the first token may take before another is called.",
    )


Deployments = Annotated[list[DeploymentGiven], Field(min_length=1, max_length=50)]
Fallbacks = Annotated[
    list[NamedModel],
    Field(
        max_length=50,
        description="Models or routes, called in turn after all deployments failed.",
    ),
]


class RouteCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: RouteName
    deployments: Deployments
    fallbacks: Fallbacks = []


class RouteUpdate(BaseModel):
    """Fields that are left out, or null, stay as they are; lists are given whole."""

    model_config = ConfigDict(extra="forbid")

    deployments: Deployments | None = None
    fallbacks: Fallbacks | None = None


class RouteRead(ReadModel):
    id: UUID
    name: str
    deployments: list[DeploymentGiven]
    fallbacks: list[str]
    created_at: datetime
    updated_at: datetime
