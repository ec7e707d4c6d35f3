"""Only host names that are ours, and in any case only what can be a host name.

Unlike Starlette's middleware this one answers with a problem document, refuses what is
malformed even where every name will do, and never redirects to another name.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from app.api.errors import problem
from app.core.exceptions import BadRequestError
from app.middleware.front import Verdict, Visit

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")


class Hosts:
    def __init__(self, allowed: Sequence[str]) -> None:
        """`allowed` are names, `*.example.com` for all names under one, or `*`."""
        self._any = "*" in allowed
        self._names = frozenset(name.lower() for name in allowed)
        self._endings = tuple(n[1:] for n in self._names if n.startswith("*."))

    def enter(self, visit: Visit) -> Verdict:
        if self._is_ours(visit):
            return None
        error = BadRequestError(
            "Invalid host header: this server does not answer to that name."
        )
        return problem(error.problem())

    def _is_ours(self, visit: Visit) -> bool:
        host = visit.headers.get(b"host")
        if host is None:  # HTTP/1.0: simple health checks send none
            return self._any
        name = _name(host)
        sent: list[tuple[bytes, bytes]] = visit.scope["headers"]
        if len(sent) > len(visit.headers) and [n for n, _ in sent].count(b"host") > 1:
            return False
        return name != "" and (
            self._any or name in self._names or name.endswith(self._endings)
        )


@lru_cache
def _name(header: bytes) -> str:
    """The host's name in lower case; empty for what can be none."""
    match = _HOST.fullmatch(header.decode("latin-1"))
    return match[1].lower() if match else ""
