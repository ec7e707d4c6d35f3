"""What the tests of mailed links do all the time."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import bcrypt
import pytest
from sqlalchemy import select

from app.core.database import Database
from app.models import MailLink, User
from tests import mailbox
from tests.client import Answer, Client
from tests.conftest import Server

ADA = "ada@example.com"
PASSWORD = "a long pass phrase"
ANOTHER = "another pass phrase"


async def sign_up(client: Client, **fields: Any) -> Answer:
    form = {"email": ADA, "password": PASSWORD} | fields
    return await client.post("/auth/register", json=form)


async def verify(client: Client, token: str, password: str = PASSWORD) -> Answer:
    form = {"token": token, "password": password}
    return await client.post("/auth/verify-email", json=form)


async def forgot(client: Client, email: str = ADA) -> Answer:
    return await client.post("/auth/forgot-password", json={"email": email})


async def resend(client: Client, email: str = ADA) -> Answer:
    return await client.post("/auth/resend-verification", json={"email": email})


async def reset(client: Client, token: str, password: str = ANOTHER) -> Answer:
    form = {"token": token, "password": password}
    return await client.post("/auth/reset-password", json=form)


async def login(client: Client, password: str, name: str = ADA) -> int:
    form = {"login": name, "password": password}
    return (await client.post("/auth/login", json=form)).status


async def mailed_token(server: Server, purpose: str, to: str = ADA) -> str:
    """The token of the newest link of that purpose."""
    page = {"reset": "reset-password"}.get(purpose, "verify-email")
    texts = [mailbox.text_of(mail) for mail in await mailbox.mails(server, to)]
    found = [re.search(rf"/{page}#token=([\w-]+)", text) for text in texts]
    return next(match[1] for match in reversed(found) if match)


async def user_of(database: Database, email: str = ADA) -> User | None:
    async with database.unit_of_work(read_only=True) as session:
        user: User | None = await session.scalar(
            select(User).where(User.email == email)
        )
    return user


async def age_links(database: Database, age: timedelta) -> None:
    """Have all links be asked for so much longer ago."""
    async with database.unit_of_work() as session:
        for link in await session.scalars(select(MailLink)):
            link.created_at -= age
            link.expires_at -= age


@contextmanager
def hashes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Count the password hashes that are really made."""
    made: list[str] = []

    def counting(name: str, function: Any) -> Any:
        def count(*arguments: bytes) -> Any:
            made.append(name)
            return function(*arguments)

        return count

    with monkeypatch.context() as patch:
        patch.setattr(bcrypt, "hashpw", counting("hash", bcrypt.hashpw))
        patch.setattr(bcrypt, "checkpw", counting("check", bcrypt.checkpw))
        yield made
