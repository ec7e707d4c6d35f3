"""What a fake model server says, and what it does wrong, call by call."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

Fault = Literal[
    "none",
    "throttle_first",  # 429, before the answer
    "unavailable",  # 503, before the answer
    "midstream_exception",  # a typed error after some text, under status 200
    "bad_crc",  # a damaged frame (or line) after some text
    "cut",  # the socket closed in the middle of a frame
    "stall",  # silence after some text, until the client leaves
    "missing_end",  # all the text, then a clean end of the body without the last event
]

Dialogue = Sequence[tuple[str, str]]
"""The roles and texts of a request's messages."""

_LENGTH = re.compile(r"\b(\d{1,5}) words\b")


def numbered_words(count: int) -> str:
    """`w0001 w0002 ...`: a text of which no byte can be lost or doubled unseen."""
    return " ".join(f"w{number:04d}" for number in range(1, count + 1))


@dataclass
class FaultPlan:
    """Fields may be changed while a fake runs, by `POST /_plan` in another process.

    The reply is `text`, or what `reply` makes of the messages, or numbered words:
    `words` of them, or N where the last message asks for "N words".
    """

    faults: list[Fault] = field(default_factory=list)
    """One for each call of a model, in turn; afterwards none."""
    at_chunk: int = 5
    """So many chunks of text come before a fault in mid-stream."""
    exception: str = ""
    """The name of the error in mid-stream, where it is not the fake's own choice."""
    chunk_delay: float = 0
    """Seconds before each chunk of text."""
    words: int = 100
    text: str = ""
    thinking: str = ""
    tool: str = ""
    """The name of a tool that the model calls after the text."""
    tool_input: str = "{}"
    retry_after: str = ""
    """What a refusal tells of it."""
    words_of_error: str = ""
    """What errors say, where it is not the fake's own choice."""
    input_tokens: int = 25
    tells_usage: bool = True
    lists_models: bool = True
    reply: Callable[[Dialogue], str] | None = None

    def inputs(self) -> list[str]:
        """The tool's input, cut up."""
        return re.findall(r".{1,5}", self.tool_input, re.DOTALL)

    def refusal_headers(self) -> dict[str, str]:
        return {"Retry-After": self.retry_after} if self.retry_after else {}

    def next_fault(self) -> Fault:
        return self.faults.pop(0) if self.faults else "none"

    def update(self, values: Mapping[str, Any]) -> None:
        """Raises ValueError for an unknown field or fault."""
        unknown = values.keys() - {f.name for f in fields(self)}
        unknown |= set(values.get("faults", ())) - set(get_args(Fault))
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        for name, value in values.items():
            setattr(self, name, value)

    def answer(self, dialogue: Dialogue, *, go_on: str) -> str:
        """The reply, or the rest of it where the messages ask to go on with one."""
        given = ""
        if len(dialogue) > 1 and dialogue[-1] == ("user", go_on):
            dialogue = dialogue[:-1]
        if dialogue[-1][0] == "assistant":
            given, dialogue = dialogue[-1][1], dialogue[:-1]
        return self._whole(dialogue).removeprefix(given)

    def _whole(self, dialogue: Dialogue) -> str:
        if self.reply is not None:
            return self.reply(dialogue)
        asked = _LENGTH.search(dialogue[-1][1]) if dialogue else None
        return self.text or numbered_words(int(asked[1]) if asked else self.words)


def pieces(text: str) -> list[str]:
    """Word by word, each with the space after it."""
    return re.findall(r"\S+\s*|\s+", text)
