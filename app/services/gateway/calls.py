"""A call by the gateway: reserve, ask the provider, hand on, settle, log.

Where the provider speaks the client's wire format, the bytes go through; else each
event is translated as it comes. No database is asked on the way. An API key may have
answers kept: an equal call by it then asks no provider.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import cache
from typing import Any

from app.core.exceptions import AppError
from app.core.metrics import FIRST_TOKEN, GATEWAY_CALLS, TOKENS, quick
from app.integrations.llm.base import Usage
from app.integrations.llm.idle import was_idle
from app.integrations.llm.routes import as_one
from app.integrations.llm.routing import Candidate, Router
from app.services.authorization import Principal
from app.services.chat.books import Account, Books
from app.services.chat.reply import Follower
from app.services.gateway import body as bodies
from app.services.gateway.attempts import Attempt, attempt_by, used_by
from app.services.gateway.cache import MOST_ENTRY, Answers, Kept, Name, name_of
from app.services.gateway.errors import told
from app.services.gateway.incoming import Incoming
from app.services.message_log.entry import Entry
from app.services.principal import Principals

# Of each there are few: providers, times statuses.
_calls = quick(GATEWAY_CALLS)
_tokens = quick(TOKENS)
_first_token = cache(FIRST_TOKEN.labels)
_NOTHING = Usage(0, 0)


class Gateway:
    def __init__(self, *, router: Router, principals: Principals, books: Books) -> None:
        self._router = router
        self._principals = principals
        self._books = books
        self._answers = Answers()
        principals.on_end(self._answers.forget)

    async def answer(self, incoming: Incoming) -> bytes | AsyncGenerator[bytes] | Kept:
        """A whole answer, or a stream of which something has come already.

        Or one that was kept. Raises AppError where it fails before.
        """
        key, name = incoming.principal.key, None
        try:
            if key is not None and key.cache_seconds is not None:
                name = await name_of(incoming, key.id)
                kept = self._answers.find(name, seconds=key.cache_seconds)
                if kept is not None:
                    await self._repeat(incoming, kept)
                    return kept
            candidates = await self._router.candidates(
                incoming.model, tokens=incoming.input_tokens
            )
            call = _Call(incoming, await self._reserve(incoming, candidates))
            if not incoming.stream:
                return await self._whole(call, candidates, name)
            pieces = self._pieces(call, candidates)
            if name is not None:
                pieces = self._keeping(name, call, pieces)
            with self._while_valid(incoming.principal):
                first = await anext(pieces)
        except AppError as error:
            raise told(error) from error
        return self._stream(incoming.principal, call, first, pieces)

    async def _repeat(self, incoming: Incoming, kept: Kept) -> None:
        """Log an answer that costs nothing, so that nothing is reserved for it.

        Raises ForbiddenError where the model is one that may be asked for no more.
        """
        principal = incoming.principal
        await self._books.credits.require_allowed(
            principal.user_id, incoming.model, principal.key
        )
        _calls(kept.model.provider, "cached").inc()
        await self._books.logs.write(
            Entry(
                user_id=principal.user_id,
                kind="gateway",
                model=kept.model.name,
                status="cached",
                messages=lambda: _logged(incoming, kept.text.decode()),
                size=incoming.size + len(kept.text),
            )
        )

    async def _keeping(
        self, name: Name, call: "_Call", pieces: AsyncGenerator[bytes]
    ) -> AsyncGenerator[bytes]:
        """The same answer, which is kept once it has ended well."""
        parts, size = [], 0
        async with aclosing(pieces):
            async for piece in pieces:
                size += len(piece)
                if size <= MOST_ENTRY:
                    parts.append(piece)
                yield piece
        if size <= MOST_ENTRY:
            kept = Kept(call.model, b"".join(parts), call.text().encode())
            self._answers.keep(name, kept)

    def _reserve(
        self, incoming: Incoming, candidates: Sequence[Candidate]
    ) -> Awaitable[Account]:
        """For whichever takes the call: the dearest of them."""
        model = candidates[0].model
        if len(candidates) > 1:
            model = as_one(incoming.model, [c.model for c in candidates])
        return self._books.reserve(
            incoming.principal.user_id,
            model,
            kind="gateway",
            input_tokens=incoming.input_tokens,
            output_tokens=bodies.output_tokens(incoming.body, model),
            conversation=bodies.is_turn(incoming.messages),
            key=incoming.principal.key,
            asked=incoming.model,
        )

    async def _whole(
        self, call: "_Call", candidates: Sequence[Candidate], name: Name | None
    ) -> bytes:
        """The answer, whose cost is booked however it ends, and which may be kept."""
        status, begun = "stopped", time.perf_counter()
        try:
            answer = await self._router.answered(
                candidates, call.whole, tokens=call.incoming.input_tokens
            )
            status = "complete"
        except AppError:
            status = "error"
            raise
        except asyncio.CancelledError as error:
            call.idle = was_idle(error)
            raise
        finally:
            await call.book(status, time.perf_counter() - begun)
        # It is paid for, but no longer theirs.
        self._principals.require_unended(call.incoming.principal, since=begun)
        if name is not None:
            self._answers.keep(name, Kept(call.model, answer, call.text().encode()))
        return answer

    async def _pieces(
        self, call: "_Call", candidates: Sequence[Candidate]
    ) -> AsyncGenerator[bytes]:
        """The same as a stream."""
        answer = self._router.routed(
            candidates, call.pieces, begun=bool, tokens=call.incoming.input_tokens
        )
        status, begun, waits = "stopped", time.perf_counter(), True
        try:
            async for piece in answer:
                if waits:
                    waits = False
                    waited = time.perf_counter() - begun
                    _first_token(call.model.provider).observe(waited)
                yield piece
            status = "complete"
        except AppError:
            status = "error"
            raise
        except asyncio.CancelledError as error:
            call.idle = was_idle(error)
            raise
        finally:
            try:
                await answer.aclose()
            finally:
                await call.book(status, time.perf_counter() - begun)

    async def _stream(
        self,
        principal: Principal,
        call: "_Call",
        first: bytes,
        pieces: AsyncGenerator[bytes],
    ) -> AsyncGenerator[bytes]:
        """It ends with an error's frames where the provider, or the key, fails."""
        async with aclosing(pieces):
            try:
                with self._while_valid(principal):
                    yield first
                    async for piece in pieces:
                        yield piece
            except AppError as error:
                yield call.fail(told(error))

    @contextmanager
    def _while_valid(self, principal: Principal) -> Iterator[None]:
        """Raises in the block what ends the key or session, as soon as it does."""
        cut = _Cut()
        with self._principals.following(principal, cut):
            try:
                yield
            except asyncio.CancelledError:
                ended = cut.heard()
                if ended is None:
                    raise
                raise ended from None


class _Call:
    """What is paid for: `attempt` is the newest, which `candidate` makes.

    `idle` tells whether it was called off while no provider was at work on it.
    """

    __slots__ = ("_account", "attempt", "candidate", "idle", "incoming", "model")

    def __init__(self, incoming: Incoming, account: Account) -> None:
        self.incoming = incoming
        self._account = account
        self.model = account.model
        self.attempt: Attempt | None = None
        self.candidate: Candidate | None = None
        self.idle = False

    def pieces(self, candidate: Candidate) -> AsyncGenerator[bytes]:
        """Have that one answer, and be paid for it."""
        return self._by(candidate).pieces()

    def whole(self, candidate: Candidate) -> Awaitable[bytes]:
        """The same."""
        return self._by(candidate).whole()

    def _by(self, candidate: Candidate) -> Attempt:
        self.candidate, self.model = candidate, candidate.model
        self._account.goes_to(candidate.model)
        self.attempt = attempt_by(candidate.provider, candidate.model, self.incoming)
        return self.attempt

    def text(self) -> str:
        """What has come of the answer."""
        return self.attempt.text() if self.attempt is not None else ""

    def fail(self, error: AppError) -> bytes:
        """The frames that end a stream which has begun."""
        assert self.attempt is not None
        return self.attempt.fail(error.problem())

    async def book(self, status: str, seconds: float) -> None:
        """Pay for it, and log it, however it ended."""
        incoming, attempt = self.incoming, self.attempt
        provider = self.model.provider
        _calls(provider, status).inc()
        used = None if attempt is None else used_by(attempt)
        left = status == "stopped" and not self.idle
        if used is None and attempt is not None and left:
            # Whoever waited has left. The provider was at work on it, and bills that.
            written = attempt.written()
            used = Usage(incoming.input_tokens, written, estimated=True)
        if used is None:
            self._account.cancel()
            used, paid = _NOTHING, 0
        else:
            paid = self._account.settle(used)
            _tokens(provider, "input").inc(used.input_tokens)
            _tokens(provider, "output").inc(used.output_tokens)
            tokens = used.input_tokens + used.output_tokens
            if self.candidate is not None:
                self.candidate.count(tokens - incoming.input_tokens)
        await self._account.log(
            status=status,
            used=used,
            paid=paid,
            seconds=seconds,
            messages=lambda: _logged(incoming, self.text()),
            size=incoming.size + (attempt.size() if attempt else 0),
        )


def _logged(incoming: Incoming, text: str) -> list[Any]:
    """The messages before the last were logged with calls of before."""
    return [incoming.messages[-1], {"role": "assistant", "content": text}]


class _Cut(Follower):
    """Cancels the task that waits for a stream: its key or session counts no more."""

    def __init__(self) -> None:
        super().__init__()
        self._task = asyncio.current_task()

    def close(self, error: AppError) -> None:
        super().close(error)
        if self._task is not None:
            self._task.cancel()

    def heard(self) -> AppError | None:
        """Why the task was cancelled, where that was our doing."""
        if self.closed_by is not None and self._task is not None:
            self._task.uncancel()
        return self.closed_by
