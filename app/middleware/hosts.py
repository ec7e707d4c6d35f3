"""Only host names that are ours, and in any case only what can be a host name.

Unlike Starlette's middleware this one answers with a problem document, refuses what is
malformed even where every name will do, and never redirects to another name.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.errors import problem
from app.core.exceptions import BadRequestError

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Hosts:
    def __init__(self, app: ASGIApp, allowed: Sequence[str]) -> None:
        """`allowed` are names, `*.example.com` for all names under one, or `*`."""
        self._app = app
        self._any = "*" in allowed
        self._names = frozenset(name.lower() for name in allowed)
        self._endings = tuple(n[1:] for n in self._names if n.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_ours(scope):
            await self._app(scope, receive, send)
            return
        error = BadRequestError(
            "Invalid host header: this server does not answer to that name."
        )
        await problem(error.problem())(scope, receive, send)

    def _is_ours(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if not hosts and self._any:  # HTTP/1.0: simple health checks send none
            return True
        name = _name(hosts[0]) if len(hosts) == 1 else ""
        return name != "" and (
            self._any or name in self._names or name.endswith(self._endings)
        )


@lru_cache
def _name(header: bytes) -> str:
    """The host's name in lower case; empty for what can be none."""
    match = _HOST.fullmatch(header.decode("latin-1"))
    return match[1].lower() if match else ""
