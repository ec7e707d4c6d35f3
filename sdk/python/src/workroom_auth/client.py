"""Asks Workroom whose a token is, and remembers the answer for a moment."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
import weakref
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlencode

from workroom_auth import tokens
from workroom_auth.breaker import Breaker
from workroom_auth.cache import Cache, Entry
from workroom_auth.errors import UnauthenticatedError, UnavailableError
from workroom_auth.identity import Identity
from workroom_auth.transport import Transport
from workroom_auth.usage import Reporter

if TYPE_CHECKING:
    from types import TracebackType

_OK, _UNAUTHENTICATED, _FORBIDDEN = 200, 401, 403
_FORM = "application/x-www-form-urlencoded"
_JSON = "application/json"
_NOTHING_SENT = "Send an access token: Authorization: Bearer ..."
_log = logging.getLogger("workroom_auth")
_clients: weakref.WeakSet[WorkroomAuth] = weakref.WeakSet()

Outcome = Entry | UnavailableError


class WorkroomAuth:
    """The accounts of one Workroom installation, for one application.

    Make one for the process, and share it: it is safe for threads, event loops and
    forks. `check` and `acheck` tell who sent a token.

    Args:
        url: Where Workroom is, such as `https://workroom.example`.
        service_key: Begins with `wrs_`; an admin of Workroom issues it.
        cache_seconds: How long an answer is good. A revoked credential works here for
            at most so long (with `redis_url`, it ends at once).
        negative_seconds: The same of tokens that are not valid.
        cache_size: How many tokens are remembered.
        timeout: Seconds that Workroom may take to connect, and to answer.
        on_outage: While Workroom cannot be reached, `refuse` what is not in the cache
            with a 503, or `serve_stale`: let in whom it knew before.
        stale_seconds: For how long after `cache_seconds` that goes on.
        breaker_failures: After so many failures in a row Workroom is not asked
        breaker_seconds: for so long.
        concurrency: How many questions are asked at once.
        report_seconds: How often usage is reported.
        redis_url: Workroom's Redis, to hear of revocations at once; needs the extra
            `workroom-auth[redis]`.
    """

    def __init__(
        self,
        url: str,
        service_key: str,
        *,
        cache_seconds: float = 10.0,
        negative_seconds: float = 5.0,
        cache_size: int = 10_000,
        timeout: float = 2.0,
        on_outage: Literal["refuse", "serve_stale"] = "refuse",
        stale_seconds: float = 300.0,
        breaker_failures: int = 5,
        breaker_seconds: float = 5.0,
        concurrency: int = 8,
        report_seconds: float = 5.0,
        redis_url: str | None = None,
    ) -> None:
        if not service_key.startswith("wrs_"):
            raise ValueError("a service key begins with wrs_: ask an admin for one")
        if on_outage not in {"refuse", "serve_stale"}:
            raise ValueError("on_outage is `refuse` or `serve_stale`")
        self._transport = Transport(url, service_key=service_key, seconds=timeout)
        self._cache_seconds = cache_seconds
        self._negative_seconds = negative_seconds
        self._cache_size = cache_size
        self._stale_seconds = stale_seconds if on_outage == "serve_stale" else 0.0
        self._breaker_failures = breaker_failures
        self._breaker_seconds = breaker_seconds
        self._concurrency = concurrency
        self._report_seconds = report_seconds
        self._redis_url = redis_url
        self._begin()
        _clients.add(self)

    def _begin(self) -> None:
        """All that threads share; made anew in a forked process."""
        self._cache = Cache(self._cache_size)
        self._breaker = Breaker(
            failures=self._breaker_failures, seconds=self._breaker_seconds
        )
        self._lock = threading.Lock()
        self._flights: dict[bytes, Future[Outcome]] = {}
        self._executor = ThreadPoolExecutor(
            self._concurrency, thread_name_prefix="workroom-auth"
        )
        self._reporter = Reporter(self._send_reports, seconds=self._report_seconds)
        self._listener: Any = None
        if self._redis_url is not None:
            from workroom_auth.invalidation import (  # noqa: PLC0415 - an extra
                Listener,
            )

            self._listener = Listener(
                self._redis_url,
                on_session=self.forget,
                on_user=self.forget_user,
                on_gap=self.forget_all,
            )

    def check(self, token: str | None, *, client_ip: str | None = None) -> Identity:
        """Who sent the token, from that address.

        Raises UnauthenticatedError where nobody valid did, and UnavailableError where
        that cannot be found out.
        """
        key, token = self._key(token, client_ip)
        entry = self._fresh(key)
        if entry is None:
            entry = _outcome(self._flight(key, token, client_ip).result())
        return _identity(entry)

    async def acheck(
        self, token: str | None, *, client_ip: str | None = None
    ) -> Identity:
        """The same for coroutines: the event loop is never blocked."""
        key, token = self._key(token, client_ip)
        entry = self._fresh(key)
        if entry is None:
            flight = asyncio.wrap_future(self._flight(key, token, client_ip))
            # Others wait for the same answer: who leaves must not cancel it.
            entry = _outcome(await asyncio.shield(flight))
        return _identity(entry)

    def report(self, subject: Identity | str, kind: str, amount: int = 1) -> bool:
        """Have `amount` of `kind` booked to a user, within seconds and once.

        False where too much waits to be sent already. Raises ValueError for what
        Workroom would not take.
        """
        sub = subject.sub if isinstance(subject, Identity) else subject
        return self._reporter.add(sub, kind, amount)

    def forget(self, sid: str) -> None:
        """Ask anew about this session or key."""
        self._forget(lambda identity: identity.sid == sid)

    def forget_user(self, sub: str) -> None:
        """Ask anew about all that this user sends."""
        self._forget(lambda identity: identity.sub == sub)

    def forget_all(self) -> None:
        with self._lock:
            self._flights.clear()
        self._cache.clear()

    def close(self) -> None:
        """Send what is to be reported, and let go of connections and threads."""
        if self._listener is not None:
            self._listener.close()
        self._reporter.close()
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # How it goes

    def _key(self, token: str | None, client_ip: str | None) -> tuple[bytes, str]:
        if token is None:
            raise UnauthenticatedError(_NOTHING_SENT)
        if not tokens.possible(token):
            raise UnauthenticatedError("This token is not valid.")
        return tokens.cache_key(token, client_ip), token

    def _fresh(self, key: bytes) -> Entry | None:
        entry = self._cache.get(key)
        if entry is None or entry.fresh_until <= time.monotonic():
            return None
        return entry

    def _flight(self, key: bytes, token: str, client_ip: str | None) -> Future[Outcome]:
        """The question about a token: however many ask, it is asked once."""
        if self._listener is not None:
            self._listener.start()
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None:
                return flight
            if (entry := self._fresh(key)) is not None:  # one has landed meanwhile
                landed: Future[Outcome] = Future()
                landed.set_result(entry)
                return landed
            flight = self._executor.submit(self._ask, key, token, client_ip)
            self._flights[key] = flight
        flight.add_done_callback(lambda done: self._landed(key, done))
        return flight

    def _landed(self, key: bytes, flight: Future[Outcome]) -> None:
        with self._lock:
            if self._flights.get(key) is flight:
                del self._flights[key]

    def _ask(self, key: bytes, token: str, client_ip: str | None) -> Outcome:
        generation, now = self._cache.generation, time.monotonic()
        try:
            identity = self._introspect(token, client_ip)
        except UnavailableError as error:
            return self._stale(key) or error
        good_for = self._negative_seconds if identity is None else self._cache_seconds
        entry = Entry(
            identity,
            fresh_until=now + good_for,
            usable_until=now + good_for + self._stale_seconds,
        )
        self._cache.put(key, entry, generation=generation)
        return entry

    def _introspect(self, token: str, client_ip: str | None) -> Identity | None:
        if not self._breaker.allows():
            raise UnavailableError("Workroom has not answered of late.")
        form = {"token": token}
        if tokens.is_key(token) and client_ip:
            form["client_ip"] = client_ip
        try:
            told = self._post("/auth/introspect", urlencode(form).encode(), _FORM)
            identity = Identity.from_introspection(told) if told["active"] else None
        except UnavailableError:
            self._breaker.failed()
            raise
        except (KeyError, TypeError, AttributeError) as error:
            self._breaker.failed()
            raise UnavailableError("Workroom's answer is no introspection.") from error
        self._breaker.succeeded()
        return identity

    def _post(self, path: str, body: bytes, content_type: str) -> Any:
        answer = self._transport.post(path, body, content_type)
        if answer.status in {_UNAUTHENTICATED, _FORBIDDEN}:
            # No outage: this application may not ask any more, nor live on memories.
            _log.error("Workroom refuses the service key (%d)", answer.status)
            self.forget_all()
            raise UnavailableError("Workroom refuses this application's service key.")
        if answer.status != _OK:
            raise UnavailableError(
                f"Workroom answers with {answer.status}.",
                retry_after=answer.retry_after or 5,
            )
        try:
            return json.loads(answer.body)
        except ValueError as error:
            raise UnavailableError("Workroom's answer is no JSON.") from error

    def _stale(self, key: bytes) -> Entry | None:
        entry = self._cache.get(key)
        if (
            entry is None
            or entry.identity is None
            or entry.usable_until <= time.monotonic()
        ):
            return None
        return replace(entry, identity=replace(entry.identity, stale=True))

    def _send_reports(self, reports: list[dict[str, Any]]) -> None:
        body = json.dumps({"reports": reports}).encode()
        told = self._post("/usage/report", body, _JSON)
        if unknown := told.get("unknown"):
            _log.warning("usage of %d unknown users was dropped", len(unknown))

    def _forget(self, condition: Any) -> None:
        with self._lock:
            # What is being asked may tell of before; who comes now asks again.
            self._flights.clear()
        self._cache.drop(condition)


def _outcome(outcome: Outcome) -> Entry:
    if isinstance(outcome, UnavailableError):
        # One of its own for each who waits: raising writes into it.
        raise UnavailableError(outcome.detail, retry_after=outcome.retry_after or 5)
    return outcome


def _identity(entry: Entry) -> Identity:
    identity = entry.identity
    if identity is None:
        raise UnauthenticatedError("This token is not valid.")
    if identity.expires_at is not None and identity.expires_at <= time.time():
        raise UnauthenticatedError("This token has expired.")
    return identity


def _after_fork() -> None:
    for client in _clients:
        client._transport.forget_connections()  # noqa: SLF001 - of this module
        client._begin()  # noqa: SLF001 - of this module


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
