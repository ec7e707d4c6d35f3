"""The items of a response's output, as they grow, and the events that tell of it.

Reference: "Streaming events" of responses in OpenAI's API documentation.

A thought's signature is the `encrypted_content` of its item: nothing is stored here, so
the item must hold all that its model wants to see again.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

from app.integrations.llm.base import Block, Citation, ToolUseStart

Json = dict[str, Any]

SIGNATURE, REDACTED = "signature:", "redacted:"
"""What `encrypted_content` of ours begins with."""


def event(kind: str, **members: Any) -> Json:
    """Without its number, which is the writer's to give."""
    return {"type": f"response.{kind}", **members}


def thinking_in(sealed: str, text: str) -> Block | None:
    """The block that an item of reasoning stands for; None if it is not of ours."""
    if sealed.startswith(SIGNATURE):
        signature = sealed.removeprefix(SIGNATURE)
        return {"type": "thinking", "thinking": text, "signature": signature}
    if sealed.startswith(REDACTED):
        return {"type": "redacted_thinking", "data": sealed.removeprefix(REDACTED)}
    return None


class Item(ABC):
    prefix: ClassVar[str]
    delta: ClassVar[str]
    """The type of the events that tell its pieces."""
    tail: ClassVar[bytes] = b""
    """What stands in these behind the piece."""

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.id = ""
        self.index = 0
        self.place: Json = {}
        """Where its pieces stand."""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    def take_place(self, token: str, index: int) -> None:
        """Become the item of that number in the response of that token."""
        self.id, self.index = f"{self.prefix}_{token}{index:02x}", index
        self.place = {"item_id": self.id, "output_index": index}

    @abstractmethod
    def state(self, status: str) -> Json:
        """All that is known of it; the status is one of OpenAI's."""

    def opening(self) -> Iterator[Json]:
        item = self.state("in_progress")
        yield event("output_item.added", output_index=self.index, item=item)

    def closing(self, status: str) -> Iterator[Json]:
        item = self.state(status)
        yield event("output_item.done", output_index=self.index, item=item)


class Message(Item):
    prefix = "msg"
    delta = "response.output_text.delta"
    tail = b',"logprobs":[]'

    def __init__(self) -> None:
        super().__init__()
        self._annotations: list[Json] = []

    def take_place(self, token: str, index: int) -> None:
        super().take_place(token, index)
        self.place["content_index"] = 0

    def state(self, status: str) -> Json:
        return {
            "id": self.id,
            "type": "message",
            "status": status,
            "role": "assistant",
            "content": [self._part()],
        }

    def opening(self) -> Iterator[Json]:
        item = {**self.state("in_progress"), "content": []}
        yield event("output_item.added", output_index=self.index, item=item)
        yield event("content_part.added", **self.place, part=self._part())

    def cite(self, citation: Citation) -> Json:
        """OpenAI's citations name a file, and where in the text they belong."""
        annotation = {
            "type": "file_citation",
            "file_id": citation.source,
            "filename": citation.source,
            "index": sum(map(len, self.pieces)),
        }
        number = len(self._annotations)
        self._annotations.append(annotation)
        told = {"annotation_index": number, "annotation": annotation}
        return event("output_text.annotation.added", **self.place, **told)

    def closing(self, status: str) -> Iterator[Json]:
        yield event("output_text.done", **self.place, text=self.text, logprobs=[])
        yield event("content_part.done", **self.place, part=self._part())
        yield from super().closing(status)

    def _part(self) -> Json:
        return {
            "type": "output_text",
            "text": self.text,
            "annotations": list(self._annotations),
            "logprobs": [],
        }


class Thought(Item):
    """Thinking; `readable` says whether any of it is text."""

    prefix = "rs"
    delta = "response.reasoning_summary_text.delta"

    def __init__(self, *, readable: bool, sealed: str = "") -> None:
        super().__init__()
        self.sealed = sealed
        self._readable = readable

    def take_place(self, token: str, index: int) -> None:
        super().take_place(token, index)
        self.place["summary_index"] = 0

    def state(self, _status: str) -> Json:
        item: Json = {"id": self.id, "type": "reasoning", "summary": []}
        if self.pieces:
            item["summary"] = [self._part()]
        if self.sealed:
            item["encrypted_content"] = self.sealed
        return item

    def opening(self) -> Iterator[Json]:
        yield from super().opening()
        if self._readable:
            part = self._part()
            yield event("reasoning_summary_part.added", **self.place, part=part)

    def closing(self, status: str) -> Iterator[Json]:
        if self._readable:
            part = self._part()
            yield event("reasoning_summary_text.done", **self.place, text=self.text)
            yield event("reasoning_summary_part.done", **self.place, part=part)
        yield from super().closing(status)

    def _part(self) -> Json:
        return {"type": "summary_text", "text": self.text}


class Call(Item):
    prefix = "fc"
    delta = "response.function_call_arguments.delta"

    def __init__(self, call: ToolUseStart) -> None:
        super().__init__()
        self._call = call

    def state(self, status: str) -> Json:
        return {
            "id": self.id,
            "type": "function_call",
            "status": status,
            "call_id": self._call.id,
            "name": self._call.name,
            "arguments": self.text,
        }

    def closing(self, status: str) -> Iterator[Json]:
        arguments = self.text
        yield event("function_call_arguments.done", **self.place, arguments=arguments)
        yield from super().closing(status)
