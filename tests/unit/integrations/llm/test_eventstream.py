"""Our frame reader against botocore's, and against damage."""

import struct
import zlib
from collections.abc import Iterable, Sequence
from itertools import pairwise
from uuid import UUID

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given, settings
from hypothesis import strategies as st

from app.integrations.llm.base import ProviderStreamBrokenError
from app.integrations.llm.eventstream import MAX_FRAME, EventStreamReader, Header

# A header's value on the wire: the number of its type, and its bytes.
Wire = tuple[int, bytes]


def number(code: str, type_: int) -> st.SearchStrategy[Wire]:
    size = struct.calcsize(f">{code}")
    return st.binary(min_size=size, max_size=size).map(lambda raw: (type_, raw))


def sized(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


VALUES = st.one_of(
    st.just((0, b"")),
    st.just((1, b"")),
    number("b", 2),
    number("h", 3),
    number("i", 4),
    number("q", 5),
    st.binary(max_size=40).map(lambda value: (6, sized(value))),
    st.text(max_size=20).map(lambda value: (7, sized(value.encode()))),
    number("q", 8),
    st.binary(min_size=16, max_size=16).map(lambda value: (9, value)),
)
NAMES = st.text(min_size=1, max_size=10)
FRAMES = st.tuples(st.dictionaries(NAMES, VALUES, max_size=6), st.binary(max_size=200))


def encode(headers: dict[str, Wire], payload: bytes) -> bytes:
    block = b"".join(
        bytes([len(name.encode())]) + name.encode() + bytes([type_]) + raw
        for name, (type_, raw) in headers.items()
    )
    return framed(block, payload)


def framed(block: bytes, payload: bytes = b"") -> bytes:
    head = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    body = head + struct.pack(">I", zlib.crc32(head)) + block + payload
    return body + struct.pack(">I", zlib.crc32(body))


def split(data: bytes, places: Iterable[int]) -> list[bytes]:
    cuts = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return [data[a:b] for a, b in pairwise(cuts)]


def read(parts: Sequence[bytes]) -> list[tuple[dict[str, Header], bytes]]:
    reader = EventStreamReader()
    found = [(dict(h), p) for part in parts for h, p in reader.feed(part)]
    reader.close()
    return found


@settings(deadline=None, max_examples=150)
@given(st.lists(FRAMES, max_size=4), st.lists(st.integers(min_value=0), max_size=8))
def test_any_split_reads_as_botocore_reads_the_whole(
    frames: list[tuple[dict[str, Wire], bytes]], places: list[int]
) -> None:
    data = b"".join(encode(*frame) for frame in frames)
    oracle = EventStreamBuffer()
    oracle.add_data(data)
    expected = [(message.headers, message.payload) for message in oracle]

    assert read(split(data, places)) == expected
    assert len(expected) == len(frames)


@settings(deadline=None, max_examples=150)
@given(FRAMES, st.integers(min_value=0), st.lists(st.integers(min_value=0), max_size=3))
def test_a_flipped_bit_never_passes(
    frame: tuple[dict[str, Wire], bytes], bit: int, places: list[int]
) -> None:
    data = bytearray(encode(*frame))
    bit %= len(data) * 8
    data[bit // 8] ^= 1 << bit % 8

    with pytest.raises(ProviderStreamBrokenError):
        read(split(bytes(data), places))


@settings(deadline=None, max_examples=50)
@given(FRAMES, st.integers(min_value=0))
def test_an_end_inside_a_frame_is_told(
    frame: tuple[dict[str, Wire], bytes], length: int
) -> None:
    data = encode(*frame)
    cut = data[: 1 + length % (len(data) - 1)]

    with pytest.raises(ProviderStreamBrokenError, match="inside a frame"):
        read([cut])


def test_reads_each_type_of_header() -> None:
    uuid = UUID("12345678-1234-5678-1234-567812345678")
    headers: dict[str, Wire] = {
        "yes": (0, b""),
        "no": (1, b""),
        "byte": (2, b"\xff"),
        "short": (3, b"\x00\x02"),
        "int": (4, b"\x00\x00\x00\x03"),
        "long": (5, b"\x00" * 7 + b"\x04"),
        "bytes": (6, sized(b"\x05")),
        "text": (7, sized("sechs ü".encode())),
        "time": (8, struct.pack(">q", 1_700_000_000_000)),
        "uuid": (9, uuid.bytes),
    }

    [(found, payload)] = read([encode(headers, b"{}")])

    assert payload == b"{}"
    assert found == {
        "yes": True,
        "no": False,
        "byte": -1,
        "short": 2,
        "int": 3,
        "long": 4,
        "bytes": b"\x05",
        "text": "sechs ü",
        "time": 1_700_000_000_000,
        "uuid": uuid.bytes,
    }


def test_the_frames_before_a_damaged_one_are_given_out() -> None:
    good, bad = encode({}, b"good"), bytearray(encode({}, b"bad"))
    bad[-1] ^= 1
    frames = EventStreamReader().feed(good + bytes(bad))

    assert next(frames) == ({}, b"good")
    with pytest.raises(ProviderStreamBrokenError, match="checksum"):
        next(frames)


def test_a_long_frame_in_small_pieces_is_read() -> None:
    payload = bytes(range(256)) * 4096
    data = encode({}, payload)

    found = read([data[i : i + 1000] for i in range(0, len(data), 1000)])

    assert found == [({}, payload)]


@pytest.mark.parametrize("length", [0, 15, MAX_FRAME + 1, 2**32 - 1])
def test_an_absurd_length_is_refused_before_the_frame_has_come(length: int) -> None:
    head = struct.pack(">II", length, 0)
    reader = EventStreamReader()

    with pytest.raises(ProviderStreamBrokenError, match="impossible length"):
        list(reader.feed(head + struct.pack(">I", zlib.crc32(head))))


@pytest.mark.parametrize(
    "block",
    [
        b"\x09short",  # a name that the headers are too short for
        b"\x01a\x0a",  # no such type
        b"\x01a\x04\x00",  # an int of one byte
        b"\x01a\x07\x00\x09text",  # a string shorter than it says
        b"\x01a\x09\x00",  # a UUID of one byte
        b"\x01a\x07\x00\x01\xff",  # not UTF-8
    ],
)
def test_headers_that_lie_about_themselves_are_refused(block: bytes) -> None:
    with pytest.raises(ProviderStreamBrokenError, match="header"):
        read([framed(block)])
