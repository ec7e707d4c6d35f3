from datetime import date
from typing import Annotated, Any, get_args

from fastapi import APIRouter, Query
from pydantic import BaseModel, BeforeValidator, Field

from app.api.deps import CurrentUser, SessionDep
from app.schemas.usage import UsageGroup, UsageLimits, UsageReport
from app.services import usage

router = APIRouter(prefix="/usage", tags=["usage"])


def _split(value: Any) -> Any:
    """`day,model` or the parameter twice: both are usual."""
    return [part for one in value for part in one.split(",")]


class UsageQuery(BaseModel):
    """Days, both included; by default the last 30."""

    from_: date | None = Field(None, alias="from")
    to: date | None = None
    group_by: Annotated[
        list[UsageGroup],
        BeforeValidator(_split),
        Field(max_length=len(get_args(UsageGroup))),
    ] = Field([], description="day, kind, model, key; several with commas.")


@router.get("")
async def get_usage(
    session: SessionDep, user: CurrentUser, query: Annotated[UsageQuery, Query()]
) -> UsageReport:
    return await usage.report(
        session,
        user.user_id,
        first=query.from_,
        last=query.to,
        group_by=query.group_by,
    )


@router.get("/limits")
async def get_limits(session: SessionDep, user: CurrentUser) -> UsageLimits:
    return await usage.limits(session, user.user_id)
