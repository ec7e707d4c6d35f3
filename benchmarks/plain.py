"""What ours is measured against: the same work by the plainest good means.

`passthrough` hands an upstream's stream on and does nothing else: raw ASGI and aiohttp.
`answer` reads a request and gives a fixed answer, the least that a server must do.
`crud` is the usual FastAPI and SQLAlchemy service over our tables.
"""

import os
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    MutableMapping,
    Sequence,
)
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

import aiohttp
import jwt
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, ConfigDict
from sqlalchemy import JSON, DateTime, select
from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SECRET = "a secret of the benchmarks, known to all"  # noqa: S105 - as it says

Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]


class Passthrough:
    def __init__(self, upstream: str) -> None:
        self._upstream = upstream

    async def __call__(
        self, scope: MutableMapping[str, Any], receive: Receive, send: Send
    ) -> None:
        if scope["type"] == "lifespan":
            await receive()
            self._client = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0), auto_decompress=False
            )
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await self._client.close()
            await send({"type": "lifespan.shutdown.complete"})
        elif scope["method"] == "GET":
            await _begin(send, 200, "text/plain")
            await send({"type": "http.response.body", "body": b"ok"})
        else:
            await self._forward(scope["path"], receive, send)

    async def _forward(self, path: str, receive: Receive, send: Send) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        headers = {"authorization": "Bearer key", "content-type": "application/json"}
        async with self._client.post(
            self._upstream + path, data=body, headers=headers
        ) as answer:
            await _begin(send, answer.status, answer.content_type)
            async for part in answer.content.iter_any():
                await send(
                    {"type": "http.response.body", "body": part, "more_body": True}
                )
        await send({"type": "http.response.body", "body": b""})


async def _begin(send: Send, status: int, content_type: str) -> None:
    headers = [(b"content-type", content_type.encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})


passthrough = Passthrough(os.environ.get("UPSTREAM", ""))


async def answer(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await _begin(send, 200, "application/json")
    await send({"type": "http.response.body", "body": b'{"active": true}'})


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    email: Mapped[str]


class Chat(Base):
    __tablename__ = "chats"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    user_id: Mapped[UUID]
    title: Mapped[str | None]
    model: Mapped[str]
    system_prompt: Mapped[str | None]
    project_id: Mapped[UUID | None]
    archived: Mapped[bool]
    pinned: Mapped[bool]
    temporary: Mapped[bool]
    leaf_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    updated_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))


class Message(Base):
    __tablename__ = "messages"
    id: Mapped[UUID] = mapped_column(primary_key=True)
    chat_id: Mapped[UUID]
    parent_id: Mapped[UUID | None]
    role: Mapped[str]
    content: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    citations: Mapped[list[dict[str, Any]]] = mapped_column(JSON)
    model: Mapped[str | None]
    status: Mapped[str]
    stop_reason: Mapped[str | None]
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    usage: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    credits: Mapped[int]
    attempt: Mapped[int]
    rating: Mapped[int]
    rating_comment: Mapped[str | None]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))

    sibling_ids: Sequence[UUID] = ()
    attachments: Sequence[UUID] = ()

    @property
    def text(self) -> str:
        return "".join(b["text"] for b in self.content if b["type"] == "text")


class ChatRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: UUID
    title: str | None
    model: str
    system_prompt: str | None
    project_id: UUID | None
    archived: bool
    pinned: bool
    temporary: bool
    leaf_id: UUID | None
    created_at: datetime
    updated_at: datetime


class UsageRead(BaseModel):
    input_tokens: int
    output_tokens: int
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    estimated: bool = False


class CitationRead(BaseModel):
    source: str
    quote: str
    start: int
    end: int


class MessageRead(BaseModel):
    model_config = ConfigDict(from_attributes=True)
    id: UUID
    chat_id: UUID
    parent_id: UUID | None
    role: str
    content: list[dict[str, Any]]
    text: str
    attachments: list[UUID]
    model: str | None
    status: str
    stop_reason: str | None
    error: dict[str, Any] | None
    usage: UsageRead | None
    credits: int
    citations: list[CitationRead]
    sibling_ids: list[UUID]
    rating: int
    rating_comment: str | None
    created_at: datetime


def driver_url(url: str) -> str:
    """With the asynchronous driver that goes with the database."""
    scheme, _, rest = url.partition(":")
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}
    return f"{driver[scheme]}:{rest}"


engine = create_async_engine(
    driver_url(os.environ.get("DATABASE_URL", "sqlite:///unused.db")), pool_size=20
)
sessions = async_sessionmaker(engine, expire_on_commit=False)


async def _session() -> AsyncIterator[AsyncSession]:
    async with sessions() as session:
        yield session


Db = Annotated[AsyncSession, Depends(_session)]


async def _user(
    db: Db, credentials: Annotated[HTTPAuthorizationCredentials, Depends(HTTPBearer())]
) -> User:
    try:
        claims = jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"])
    except jwt.PyJWTError as error:
        raise HTTPException(401) from error
    user = await db.scalar(select(User).where(User.id == UUID(claims["sub"])))
    if user is None:
        raise HTTPException(401)
    return user


CurrentUser = Annotated[User, Depends(_user)]

crud = FastAPI()


@crud.get("/health")
async def health() -> str:
    return "ok"


@crud.get("/chats", response_model=list[ChatRead])
async def chats(db: Db, user: CurrentUser) -> Any:
    found = await db.scalars(
        select(Chat)
        .where(
            Chat.user_id == user.id,
            Chat.archived.is_(False),
            Chat.temporary.is_(False),
        )
        .order_by(Chat.pinned.desc(), Chat.updated_at.desc())
        .limit(20)
    )
    return found.all()


@crud.get("/chats/{chat_id}/messages", response_model=list[MessageRead])
async def messages(db: Db, user: CurrentUser, chat_id: UUID) -> Any:
    found = await db.scalars(
        select(Message)
        .join(Chat, Chat.id == Message.chat_id)
        .where(Chat.id == chat_id, Chat.user_id == user.id)
        .order_by(Message.id.desc())
        .limit(20)
    )
    page = found.all()
    beside = await db.execute(
        select(Message.parent_id, Message.id)
        .where(
            Message.chat_id == chat_id,
            Message.parent_id.in_({message.parent_id for message in page}),
        )
        .order_by(Message.id)
    )
    siblings = defaultdict(list)
    for parent_id, message_id in beside:
        siblings[parent_id].append(message_id)
    for message in page:
        message.sibling_ids = siblings[message.parent_id] or [message.id]
    return page
