"""A client that reads replies as docs/guides/chat.md tells it to."""

import json
from contextlib import suppress
from typing import Any

import aiohttp

from tests.client import Client, Event, Stream

FINAL = ("message_stop", "error")


class Reader:
    """Keeps a reply's text: cuts it where it is told to, appends each delta."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.message_id = ""
        self.text = ""
        self.last_id = ""
        self.offsets: list[int] = []
        """What each `message_start` said."""
        self.citations: list[dict[str, Any]] = []
        self.end: Event | None = None

    def copy(self) -> "Reader":
        """Another one that has seen the same so far."""
        twin = Reader(self.client)
        twin.message_id, twin.text = self.message_id, self.text
        twin.last_id = self.last_id
        return twin

    @property
    def message(self) -> dict[str, Any]:
        """The final message, from `message_stop`."""
        assert self.end is not None, "the stream has not ended"
        assert self.end.name == "message_stop", self.end.data
        message: dict[str, Any] = self.end.data["message"]
        return message

    async def ask(self, chat: str, content: str, *, words: int = 0) -> None:
        """Send a message and read its reply, or only so many words; then cut."""
        async with self.client.asking(chat, content) as stream:
            await self.read(stream, words=words)

    async def resume(self, *, words: int = 0) -> None:
        """Come back with the last event's id, to a reply that has not ended."""
        headers = {"Last-Event-ID": self.last_id} if self.last_id else {}
        path = f"/messages/{self.message_id}/stream"
        async with self.client.stream("GET", path, headers=headers) as stream:
            await self.read(stream, words=words)

    async def go_on(self, *, words: int = 0) -> None:
        """Have a reply continued that was broken off."""
        path = f"/messages/{self.message_id}/continue"
        async with self.client.stream("POST", path) as stream:
            await self.read(stream, words=words)

    async def read(self, stream: Stream, *, words: int = 0) -> None:
        """Read to the end, or at least so many words more."""
        self.end = None
        come = 0
        async for event in stream:
            self.take(event)
            if event.name == "delta":
                come += len(event.data["text"].split())
                if 0 < words <= come:
                    return

    async def read_what_comes(self, stream: Stream) -> None:
        """Read until the connection breaks."""
        with suppress(aiohttp.ClientError, ConnectionError):
            await self.read(stream)

    def read_all(self, body: bytes) -> None:
        """Read whole events, however long their lines are."""
        for block in body.decode().removesuffix("\n\n").split("\n\n"):
            lines = [line for line in block.split("\n") if not line.startswith(":")]
            if lines:
                fields = dict(line.split(": ", 1) for line in lines)
                data = json.loads(fields["data"])
                self.take(Event(fields["event"], fields["id"], data))

    def take(self, event: Event) -> None:
        assert self.end is None, f"{event.name} after the end"
        self.last_id = event.id
        match event.name:
            case "message_start":
                self.message_id = event.data["message_id"]
                self.offsets.append(event.data["offset"])
                self.text = self.text[: event.data["offset"]]
            case "delta":
                self.text += event.data["text"]
            case "citation":
                self.citations.append(event.data)
            case "message_stop" | "error":
                self.end = event
