"""URLs, as far as a client needs them."""

import base64
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

_PORTS = {"http": 80, "https": 443}


class Address(NamedTuple):
    """Where a URL leads; `target` is its path and query as they are written."""

    scheme: str
    host: str
    port: int
    target: str
    authorization: str = ""

    @classmethod
    @lru_cache
    def of(cls, url: str) -> "Address":
        """Raises ValueError for what is no address of a web server."""
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError(f"{parts.scheme or 'nothing'} is no web server's scheme")
        host = parts.hostname.encode("ascii" if parts.hostname.isascii() else "idna")
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if not target.isascii() or not target.isprintable() or " " in target:
            raise ValueError("its path has characters that must be quoted")
        basic = ""
        if parts.username is not None:
            name, password = unquote(parts.username), unquote(parts.password or "")
            basic = base64.b64encode(f"{name}:{password}".encode()).decode()
        port = _PORTS[parts.scheme] if parts.port is None else parts.port
        return cls(
            parts.scheme, host.decode(), port, target, f"Basic {basic}" if basic else ""
        )

    @property
    def authority(self) -> str:
        """As the Host header names it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"
