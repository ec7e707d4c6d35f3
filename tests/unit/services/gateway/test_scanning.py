"""What is kept of a stream that goes through as it came."""

import pytest

from app.services.gateway.scanning import ChatCompletionsScan

HELLO = b'{"choices": [{"delta": {"content": "Hel"}}]}'
WORLD = b'{"choices": [{"delta": {"content": "lo"}}]}'
TWO_LINES = b'data: {"choices":\ndata: [{"delta": {"content": "lo"}}]}'


@pytest.mark.parametrize(
    "stream",
    [
        b"data: %b\n\ndata: %b\n\ndata: [DONE]\n\n" % (HELLO, WORLD),
        b"data: %b\r\n\r\ndata: %b\r\n\r\ndata: [DONE]\r\n\r\n" % (HELLO, WORLD),
        b"data:%b\n\nevent: x\ndata: %b\n\ndata: [DONE]\n\n" % (HELLO, WORLD),
        b"data: %b\n\n%b\n\ndata: [DONE]\n\n" % (HELLO, TWO_LINES),
        b"data: %b\n\ndata: no JSON\n\ndata: %b\n\ndata: [DONE]\n\n" % (HELLO, WORLD),
        b": a comment\n\ndata: %b\n\ndata: 1\n\ndata: %b\n\ndata: [DONE]\n\n"
        % (HELLO, WORLD),
    ],
    ids=["plain", "CRLF", "no blank", "two lines", "no JSON", "no object"],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_text_of_a_stream_however_it_is_written(stream: bytes, size: int) -> None:
    scan = ChatCompletionsScan("A server", include_usage=False)

    passed = b"".join(
        scan.feed(stream[start : start + size]) for start in range(0, len(stream), size)
    )

    assert scan.ended
    assert passed == stream
    assert scan.text() == "Hello"
