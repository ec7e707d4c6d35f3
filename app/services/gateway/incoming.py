"""A call as it came in."""

from app.services.authorization import Principal
from app.services.gateway import body as bodies
from app.services.gateway.fields import Json
from app.services.gateway.format import Format


class Incoming:
    """What a client sent; raises InvalidFieldError where it cannot be a call.

    `size` is the body's, in bytes, and `betas` the header `anthropic-beta`.
    """

    __slots__ = (
        "betas", "body", "format", "input_tokens", "messages", "model", "principal",
        "size", "stream",
    )  # fmt: skip

    def __init__(
        self,
        principal: Principal,
        format: Format,  # noqa: A002 - what it is
        body: Json,
        *,
        size: int,
        betas: str = "",
    ) -> None:
        self.principal = principal
        self.format = format
        self.body = body
        self.size = size
        self.betas = betas
        self.model: str = bodies.model_name(body)
        self.stream = bodies.streams(body)
        self.messages = bodies.conversation(body)
        self.input_tokens = bodies.input_tokens(self.messages, size)
