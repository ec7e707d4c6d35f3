"""What was mailed, read from the files that an installation without SMTP writes."""

import asyncio
import re
from email import message_from_bytes, policy
from email.message import EmailMessage

from sqlalchemy import func, select

from app.models import Job
from tests.conftest import Server

_LINK = re.compile(r"\S+#token=([\w-]+)")


async def settled(server: Server) -> None:
    """Wait until all mail that has been asked for is written, or dropped."""
    unfinished = select(func.count(Job.id)).where(
        Job.name.in_(["link.mail", "mail.send"]), Job.state.in_(["queued", "running"])
    )
    async with asyncio.timeout(20):
        while True:
            async with server.runtime.database.unit_of_work(read_only=True) as session:
                if await session.scalar(unfinished) == 0:
                    return
            await asyncio.sleep(0.01)


async def mails(server: Server, to: str | None = None) -> list[EmailMessage]:
    """All that was mailed so far, the oldest first."""
    await settled(server)
    folder = server.runtime.settings.server.data_dir / "mail"
    found = [read(path.read_bytes()) for path in sorted(folder.glob("*.eml"))]
    return [mail for mail in found if to is None or mail["To"] == to]


async def subjects(server: Server, to: str | None = None) -> list[str]:
    return [mail["Subject"] for mail in await mails(server, to)]


async def token(server: Server, to: str = "ada@example.com") -> str:
    """The token of the newest link that was mailed there."""
    return token_of((await mails(server, to))[-1])


def read(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, policy=policy.default)
    assert isinstance(message, EmailMessage)
    return message


def text_of(mail: EmailMessage, kind: str = "plain") -> str:
    part = mail.get_body((kind,))
    assert part is not None
    return str(part.get_content())


def token_of(mail: EmailMessage) -> str:
    return token_in(text_of(mail))


def token_in(text: str) -> str:
    found = _LINK.search(text)
    assert found is not None
    return found[1]
