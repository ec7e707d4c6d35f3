"""Reads server-sent events: how OpenAI-compatible servers stream an answer.

The format is the HTML standard's, section 9.2.6: lines end with LF, CR or CRLF, a blank
line ends an event, its `data` lines are joined by LF, and a line that begins with a
colon is a comment. Of an event's fields only `data` matters here.
"""

from app.integrations.llm.base import ProviderStreamBrokenError

MAX_EVENT = 16 * 2**20

_BOM = b"\xef\xbb\xbf"


class SseReader:
    """Turns bytes, split anywhere (also inside a character), into events' data."""

    def __init__(self) -> None:
        self._data: list[bytes] = []
        self._parts: list[bytes] = []
        self._held = 0
        self._after_cr = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of each event that these bytes complete.

        An unfinished line waits unjoined, so that a long one in small pieces costs no
        more than its length.
        """
        if not chunk:
            return []
        if (datas := self._whole_events(chunk)) is not None:  # as nearly all are
            self._at_start = self._after_cr = False
            return datas
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]  # the second half of a CRLF
        self._after_cr = chunk.endswith(b"\r")
        events: list[bytes] = []
        end = max(chunk.rfind(b"\n"), chunk.rfind(b"\r")) + 1
        self._held += len(chunk)
        if end:
            self._parts.append(chunk[:end])
            lines, self._parts = b"".join(self._parts).splitlines(), []
            chunk = chunk[end:]
            for line in lines:
                self._line(line, events)
        if chunk:
            self._parts.append(chunk)
        if self._held > MAX_EVENT:
            raise ProviderStreamBrokenError("An event of the answer is too long.")
        return events

    def close(self) -> list[bytes]:
        """The last event, where the input ended without the blank line after it."""
        events: list[bytes] = []
        self._line(b"".join(self._parts), events)
        self._line(b"", events)
        return events

    def _whole_events(self, chunk: bytes) -> list[bytes] | None:
        """Their data, where it is all `data` lines with a blank one after each.

        None for anything else, and where something is left before.
        """
        if (
            self._parts
            or self._data
            or b"\r" in chunk
            or not (chunk.startswith(b"data: ") and chunk.endswith(b"\n\n"))
        ):
            return None
        datas = chunk[6:-2].split(b"\n\ndata: ")
        return datas if chunk.count(b"\n") == 2 * len(datas) else None

    def _line(self, line: bytes, events: list[bytes]) -> None:
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        if line.startswith(b"data:"):
            self._data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif not line:
            if self._data:
                events.append(b"\n".join(self._data))
                self._data = []
            self._held = 0
