"""A small client of the API, for tests."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import aiohttp


@dataclass
class Answer:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Event:
    """One server-sent event as it stood on the wire."""

    name: str
    id: str
    data: dict[str, Any]


@dataclass
class Stream:
    """The events of a response, as they come; comments are counted."""

    response: aiohttp.ClientResponse
    comments: int = 0
    seen: list[Event] = field(default_factory=list)

    async def __aiter__(self) -> AsyncIterator[Event]:
        fields: dict[str, str] = {}
        async for raw in self.response.content:
            line = raw.decode().rstrip("\n")
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif fields:
                event = Event(
                    fields["event"], fields.get("id", ""), json.loads(fields["data"])
                )
                fields = {}
                self.seen.append(event)
                yield event

    async def all(self) -> list[Event]:
        return [event async for event in self]

    async def until(self, name: str, count: int = 1) -> list[Event]:
        """Read up to the `count`th event of that name."""
        async for event in self:
            if event.name == name:
                count -= 1
                if count == 0:
                    break
        return self.seen

    async def words(self, count: int) -> list[Event]:
        """Read on until at least so many words have come, however they are cut."""
        async for event in self:
            if event.name == "delta":
                count -= len(event.data["text"].split())
                if count <= 0:
                    break
        return self.seen


def text_of(events: list[Event]) -> str:
    return "".join(e.data["text"] for e in events if e.name == "delta")


def file_form(content: bytes, name: str) -> aiohttp.FormData:
    form = aiohttp.FormData(quote_fields=False)  # as browsers send a name
    form.add_field("file", BytesIO(content), filename=name)
    return form


class Client:
    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url
        self.headers: dict[str, str] = {}
        self.tokens: dict[str, Any] = {}

    async def login(self, login: str, password: str, *, desk: str = "") -> None:
        """As a user, or at the `desk` of "/admin" or "/staff"."""
        answer = await self.post(
            f"{desk}/auth/login", json={"login": login, "password": password}
        )
        assert answer.status == 200, answer.body
        self.use(answer.json)

    def use(self, tokens: dict[str, Any]) -> None:
        self.tokens = tokens
        self.headers["Authorization"] = f"Bearer {tokens['access_token']}"

    async def get(self, path: str, **options: Any) -> Answer:
        return await self.request("GET", path, **options)

    async def post(self, path: str, **options: Any) -> Answer:
        return await self.request("POST", path, **options)

    async def patch(self, path: str, **options: Any) -> Answer:
        return await self.request("PATCH", path, **options)

    async def put(self, path: str, **options: Any) -> Answer:
        return await self.request("PUT", path, **options)

    async def delete(self, path: str, **options: Any) -> Answer:
        return await self.request("DELETE", path, **options)

    async def request(self, method: str, path: str, **options: Any) -> Answer:
        async with self._open(method, path, **options) as response:
            body = await response.read()
            return Answer(response.status, response.headers, body)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, **options: Any
    ) -> AsyncIterator[Stream]:
        """Open an event stream; leaving the block cuts the connection."""
        async with self._open(method, path, **options) as response:
            assert response.status == 200, await response.read()
            assert response.content_type == "text/event-stream"
            yield Stream(response)
            response.close()

    def _open(
        self, method: str, path: str, **options: Any
    ) -> aiohttp.client._RequestContextManager:
        headers = {**self.headers, **options.pop("headers", {})}
        bare = path.startswith(("/health", "/metrics", "/open", "/api/", "/v1/"))
        prefix = "" if bare else "/api/v1"
        url = self.url + ("" if path == "/" else prefix) + path
        return self._session.request(method, url, headers=headers, **options)

    # The calls that most tests make

    async def chat(self, **fields: Any) -> str:
        """Create a chat; gives its id."""
        answer = await self.post("/chats", json=fields)
        assert answer.status == 201, answer.body
        return str(answer.json["id"])

    async def upload(self, content: bytes, name: str = "a file") -> Answer:
        return await self.post("/files", data=file_form(content, name))

    async def ask(self, chat_id: str, content: str, **fields: Any) -> list[Event]:
        """Send a message and read its stream to the end."""
        async with self.asking(chat_id, content, **fields) as stream:
            return await stream.all()

    @asynccontextmanager
    async def asking(
        self, chat_id: str, content: str, **fields: Any
    ) -> AsyncIterator[Stream]:
        async with self.stream(
            "POST", f"/chats/{chat_id}/messages", json={"content": content, **fields}
        ) as stream:
            yield stream

    async def reply(self, chat_id: str, content: str, **fields: Any) -> dict[str, Any]:
        """Send a message and wait for the whole reply."""
        answer = await self.post(
            f"/chats/{chat_id}/messages",
            json={"content": content, "stream": False, **fields},
        )
        assert answer.status == 201, answer.body
        return dict(answer.json)

    async def messages(self, chat_id: str) -> list[dict[str, Any]]:
        """The newest first."""
        answer = await self.get(f"/chats/{chat_id}/messages")
        assert answer.status == 200, answer.body
        return list(answer.json["items"])
