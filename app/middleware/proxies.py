"""Whose word counts on where a request came from.

`X-Forwarded-For` and `-Proto` are read only from proxies that TRUSTED_PROXIES names,
and the client is the last address in the chain that is none of these: what stands
before it, anybody may have written.
"""

from collections.abc import Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from starlette.datastructures import Headers
from starlette.types import Scope

from app.middleware.front import Verdict, Visit

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Proxies:
    def __init__(self, trusted: Sequence[str]) -> None:
        self._trusted: list[Network] = [ip_network(t, strict=False) for t in trusted]

    def enter(self, visit: Visit) -> Verdict:
        scope, ip = visit.scope, visit.ip
        if self._trusted and ip is not None and self._is_trusted(ip):
            visit.scope = {**scope, **self._facts(scope, Headers(scope=scope))}
        return None

    def _facts(self, scope: Scope, headers: Headers) -> dict[str, object]:
        facts: dict[str, object] = {}
        schemes = ",".join(headers.getlist("x-forwarded-proto"))
        scheme = schemes.rpartition(",")[2].strip()
        if scheme in {"http", "https"}:
            facts["scheme"] = scheme
        chain = ",".join(headers.getlist("x-forwarded-for")).split(",")
        client = scope["client"][0]
        for hop in reversed([h.strip() for h in chain]):
            if _address(hop) is None or "%" in hop:  # a zone says nothing elsewhere
                break
            client = hop
            if not self._is_trusted(hop):
                break
        facts["client"] = (client, 0)
        return facts

    def _is_trusted(self, host: str) -> bool:
        address = _address(host)
        return address is not None and any(address in n for n in self._trusted)


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None
