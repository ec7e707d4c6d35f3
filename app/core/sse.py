"""Server-sent events on the wire, as the HTML standard has them (section 9.2)."""

from collections.abc import Mapping
from typing import Any

import orjson

KEEPALIVE = b": keep-alive\n\n"


def frame(event: str, data: Mapping[str, Any], event_id: str) -> bytes:
    """One event. JSON never holds a raw line break, so one data line is enough."""
    return raw_frame(event, orjson.dumps(data, default=str), event_id)


def raw_frame(event: str, json: bytes, event_id: str) -> bytes:
    """The same for data that is JSON already."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (
        event.encode(),
        event_id.encode(),
        json,
    )
