"""Reads AWS event-stream frames: how Bedrock streams an answer.

The format, as Amazon documents it under "Event stream encoding" (in the guide to Amazon
Transcribe, `streaming-setting-up.html`; Smithy: `amazon-eventstream.html`). All numbers
are big-endian:

    prelude   4 bytes  length of the whole frame
              4 bytes  length of the headers
              4 bytes  CRC32 of the 8 bytes before
    headers   each: 1 byte length of the name, the name, 1 byte type, the value
    payload
    CRC       4 bytes  CRC32 of everything before
"""

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping

from app.integrations.llm.base import ProviderStreamBrokenError

Header = bool | int | bytes | str
"""A timestamp is an int, milliseconds since 1970; a UUID is its 16 bytes."""

MAX_FRAME = 16 * 2**20

_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_OVERHEAD = _PRELUDE.size + _CRC.size


class EventStreamReader:
    """Turns bytes, split anywhere, into frames; every frame's checksums are verified.

    A damaged stream raises ProviderStreamBrokenError after the good frames before the
    damage.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0
        self._needed = _PRELUDE.size
        self._raw_headers = b""
        self._headers: Mapping[str, Header] = {}

    def feed(self, data: bytes) -> Iterator[tuple[Mapping[str, Header], bytes]]:
        """The headers and payload of each frame that these bytes complete.

        Bytes wait unjoined until there are enough of them for a frame, so that a long
        frame in small pieces costs no more than its length.
        """
        self._parts.append(data)
        self._held += len(data)
        if self._held < self._needed:
            return
        data = b"".join(self._parts)
        view = memoryview(data)
        start, self._needed = 0, _PRELUDE.size
        while (held := len(data) - start) >= self._needed:
            length, headers_length, crc = _PRELUDE.unpack_from(data, start)
            _check(view[start : start + 8], crc)
            if not _OVERHEAD + headers_length <= length <= MAX_FRAME:
                raise ProviderStreamBrokenError("A frame has an impossible length.")
            if held < length:
                self._needed = length
                break
            end = start + length - _CRC.size
            _check(view[start:end], _CRC.unpack_from(data, end)[0])
            headers_end = start + _PRELUDE.size + headers_length
            headers = self._parsed(data[start + _PRELUDE.size : headers_end])
            yield headers, data[headers_end:end]
            start += length
        self._parts = [data[start:]]
        self._held = len(data) - start

    def close(self) -> None:
        """Tell the end of the input; raises where it is inside a frame."""
        if self._held:
            raise ProviderStreamBrokenError("The answer ended inside a frame.")

    def _parsed(self, raw: bytes) -> Mapping[str, Header]:
        """Most frames of an answer have the same headers, byte for byte."""
        if raw != self._raw_headers:
            self._headers, self._raw_headers = _parse_headers(raw), raw
        return self._headers


def _check(data: memoryview, crc: int) -> None:
    if zlib.crc32(data) != crc:
        raise ProviderStreamBrokenError("A frame's checksum is wrong.")


def _parse_headers(raw: bytes) -> dict[str, Header]:
    headers: dict[str, Header] = {}
    place = 0
    try:
        while place < len(raw):
            end = place + 1 + raw[place]
            name = raw[place + 1 : end].decode()
            headers[name], place = _VALUES[raw[end]](raw, end + 1)
    except (IndexError, struct.error, UnicodeDecodeError) as error:
        raise ProviderStreamBrokenError("A frame's headers are damaged.") from error
    if place > len(raw):
        raise ProviderStreamBrokenError("A frame's last header is cut off.")
    return headers


def _number(code: str) -> Callable[[bytes, int], tuple[int, int]]:
    number = struct.Struct(f">{code}")
    return lambda raw, place: (number.unpack_from(raw, place)[0], place + number.size)


def _bytes(raw: bytes, place: int) -> tuple[bytes, int]:
    start = place + 2
    end = start + int.from_bytes(raw[place:start])
    return raw[start:end], end


def _string(raw: bytes, place: int) -> tuple[str, int]:
    value, end = _bytes(raw, place)
    return value.decode(), end


_VALUES: tuple[Callable[[bytes, int], tuple[Header, int]], ...] = (
    lambda _raw, place: (True, place),
    lambda _raw, place: (False, place),
    _number("b"),
    _number("h"),
    _number("i"),
    _number("q"),
    _bytes,
    _string,
    _number("q"),
    lambda raw, place: (raw[place : place + 16], place + 16),
)
"""Readers of a value, in the order of the types' numbers; each gives its end, too."""
