"""An HTTP/1.1 client for long answers in many small pieces (RFC 9112).

A model's answer is hundreds of pieces, and what a client does for each is most of what
a turn costs. This one hands over the bytes of a body as they come off the socket; it
has keep-alive, TLS and time limits, and nothing else: no redirects, cookies, proxies or
compression.
"""

from app.core.http1.address import Address
from app.core.http1.client import Client, Exchange
from app.core.http1.connection import (
    BrokenError,
    ConnectError,
    HttpError,
    Response,
    StalledError,
)

__all__ = [
    "Address",
    "BrokenError",
    "Client",
    "ConnectError",
    "Exchange",
    "HttpError",
    "Response",
    "StalledError",
]
