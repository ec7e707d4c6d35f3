"""The port: what every way of sending mail can do."""

from email.message import EmailMessage
from typing import Protocol


class Mailer(Protocol):
    async def deliver(self, message: EmailMessage) -> None:
        """Hand the message on; any error means that it is worth another try later.

        Called again with the same Message-ID after a crash, it may deliver twice.
        """

    async def forget(self, address: str) -> None:
        """Leave nothing of what was sent to an address, as far as it is kept here."""
