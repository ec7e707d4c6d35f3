from datetime import datetime
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from app.schemas.base import Line, ReadModel

Scope = Literal["service", "desk"]
Action = Literal["allow", "deny"]


def _network(value: Any) -> IPv4Network | IPv6Network:
    try:
        return ip_network(str(value).strip(), strict=False)
    except ValueError:
        raise ValueError(
            "must be an address or a CIDR range, such as 192.0.2.7 or 10.0.0.0/8"
        ) from None


Network = Annotated[
    IPv4Network | IPv6Network,
    BeforeValidator(_network),
    WithJsonSchema({"type": "string", "examples": ["10.0.0.0/8"]}),
]


class IpRuleCreate(BaseModel):
    """`desk` is what admins and staff use; `service` is everything."""

    network: Network
    action: Action
    scope: Scope = "service"
    note: Annotated[Line, Field(max_length=200)] | None = None


class IpRuleRead(ReadModel):
    id: UUID
    network: str
    action: Action
    scope: Scope
    note: str | None
    created_at: datetime
