from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field

from app.core import rates
from app.core.config.base import Group


def _rate_limits(text: str) -> str:
    rates.parse(text)
    return text


class LimitSettings(Group):
    rate_limits: Annotated[str, AfterValidator(_rate_limits)] = Field(
        "",
        alias="RATE_LIMITS",
        description="How often one may ask, beyond it 429: for some of these names "
        "another limit, such as 10/minute, 100/15 minutes or off. "
        + "; ".join(
            f"{name} ({rates.DEFAULT[name]}): {what}"
            for name, what in rates.LIMITED.items()
        )
        + ".",
    )
    max_requests: int = Field(
        300,
        alias="MAX_CONCURRENT_REQUESTS",
        ge=1,
        description="Requests in progress at once in a process, streams not counted "
        "once they have begun; beyond it 503.",
    )
    max_loop_lag: float = Field(
        0.25,
        alias="MAX_LOOP_LAG_SECONDS",
        gt=0,
        description="A process that stays later than this with its work answers new "
        "requests with 503.",
    )
    max_body_bytes: int = Field(
        2 * 2**20,
        alias="MAX_BODY_BYTES",
        ge=1024,
        description="Largest request body, in bytes; beyond it 413.",
    )
    max_gateway_body_bytes: int = Field(
        8 * 2**20,
        alias="MAX_GATEWAY_BODY_BYTES",
        ge=1024,
        description="The same for calls by the gateway, which bring images and "
        "documents along.",
    )
    body_seconds: float = Field(
        20,
        alias="BODY_SECONDS",
        gt=0,
        description="How long the head of a request may take to arrive, and then its "
        "body, which gets a second more for each 16 KiB; beyond it 408.",
    )

    @property
    def rates(self) -> Mapping[str, rates.Rate | None]:
        """The limit of every name; None is no limit."""
        return rates.complete(self.rate_limits)
