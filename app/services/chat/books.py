"""What calls of models cost, and the log of them: the same for turns and titles."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from uuid import UUID

from app.integrations.llm.base import ModelInfo, Usage
from app.integrations.llm.pricing import cost, most
from app.models import KeyLimits
from app.services.credits.leasing import Credits
from app.services.credits.purse import Call, Reservation
from app.services.message_log.entry import Entry, Messages
from app.services.message_log.writer import MessageLogs


@dataclass(frozen=True, slots=True)
class Books:
    credits: Credits
    logs: MessageLogs

    async def reserve(
        self,
        user_id: UUID,
        model: ModelInfo,
        *,
        kind: str,
        input_tokens: int,
        output_tokens: int,
        conversation: bool = False,
        key: KeyLimits | None = None,
        asked: str | None = None,
    ) -> "Account":
        """Put aside what a call can cost; raises what `Credits.reserve` does.

        `model` is the one that answers, `asked` the name that it was asked for by.
        """
        amount = most(input_tokens, output_tokens, model.prices)
        reservation = await self.credits.reserve(
            user_id,
            amount,
            Call(kind, model.name, key.id if key else None),
            conversation=conversation,
            key=key,
            asked=asked,
        )
        return Account(self, user_id, model, reservation)


@dataclass(slots=True, eq=False)
class Account:
    """Of one call that is reserved for."""

    books: Books
    user_id: UUID
    model: ModelInfo
    reservation: Reservation

    def goes_to(self, model: ModelInfo) -> None:
        """This model takes the call, of those that were reserved for."""
        if model is not self.model:
            self.model = model
            self.reservation.goes_to(model.name)

    def cost(self, used: Usage) -> int:
        return cost(used, self.model.prices)

    def settle(self, used: Usage) -> int:
        """Book what was used, once; gives the credits that the user pays."""
        credits_ = self.books.credits
        return credits_.settle(self.reservation, self.cost(used), used)

    def cancel(self) -> None:
        """Nothing was used: the provider has refused the call, or never got it."""
        self.books.credits.cancel(self.reservation)

    def log(
        self,
        *,
        status: str,
        used: Usage,
        paid: int,
        seconds: float,
        messages: Messages | Callable[[], Messages],
        size: int = 0,
    ) -> Awaitable[None]:
        """Have the call in the message log; `messages` and `size` as in `Entry`."""
        call = self.reservation.call
        return self.books.logs.write(
            Entry(
                user_id=self.user_id,
                kind=call.kind,
                model=call.model,
                status=status,
                messages=messages,
                input_tokens=used.input_tokens,
                output_tokens=used.output_tokens,
                credits=paid,
                latency_ms=round(seconds * 1000),
                size=size,
            )
        )
