"""A call by the gateway: reserve, ask the provider, hand on, settle, log.

Where the provider speaks the client's wire format, the bytes go through; else each
event is translated as it comes. No database is asked on the way.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from functools import cache
from typing import Any, Protocol, cast

import orjson

from app.core.exceptions import AppError
from app.core.metrics import FIRST_TOKEN, GATEWAY_CALLS, TOKENS, quick
from app.integrations.llm.base import (
    ModelInfo,
    Provider,
    ProviderError,
    ProviderEvent,
    ProviderStreamBrokenError,
    Stop,
    TextDelta,
    ThinkingDelta,
    ToolInputDelta,
    ToolUseStart,
    Usage,
)
from app.integrations.llm.blocks import require_capabilities
from app.integrations.llm.forwarding import Forwarder, Spoken
from app.integrations.llm.http import DRAIN_SECONDS
from app.integrations.llm.registry import Providers
from app.integrations.llm.tokens import estimate_tokens
from app.services.authorization import Principal
from app.services.chat.books import Account, Books
from app.services.chat.reply import Follower
from app.services.gateway import body as bodies
from app.services.gateway.errors import told
from app.services.gateway.fields import Json
from app.services.gateway.format import Format
from app.services.gateway.scanning import ChatCompletionsScan, MessagesScan, Scan
from app.services.principal import Principals

# Of each there are few: providers, times statuses.
_calls = quick(GATEWAY_CALLS)
_tokens = quick(TOKENS)
_first_token = cache(FIRST_TOKEN.labels)
_NOTHING = Usage(0, 0)


class Incoming:
    """What a client sent; raises InvalidFieldError where it cannot be a call.

    `size` is the body's, in bytes, and `betas` the header `anthropic-beta`.
    """

    __slots__ = (
        "betas", "body", "format", "input_tokens", "messages", "model", "principal",
        "size", "stream",
    )  # fmt: skip

    def __init__(
        self,
        principal: Principal,
        format: Format,  # noqa: A002 - what it is
        body: Json,
        *,
        size: int,
        betas: str = "",
    ) -> None:
        self.principal = principal
        self.format = format
        self.body = body
        self.size = size
        self.betas = betas
        self.model: str = bodies.model_name(body)
        self.stream = bodies.streams(body)
        self.messages = bodies.conversation(body)
        self.input_tokens = bodies.input_tokens(self.messages, size)


class Attempt(Protocol):
    """One call of one provider, in whatever way it goes.

    `usage` is what the provider has told of it, None while it has not taken the call;
    `ended` tells whether that is the last word.
    """

    model: ModelInfo

    @property
    def usage(self) -> Usage | None: ...

    @property
    def ended(self) -> bool: ...

    async def whole(self) -> bytes:
        """The answer in the client's format."""

    def pieces(self) -> AsyncGenerator[bytes]:
        """The same as a stream, from its first token on."""

    def written(self) -> int:
        """Tokens of what has come, estimated."""

    def text(self) -> str: ...

    def size(self) -> int:
        """Bytes of the answer that are kept for its text."""

    def fail(self, problem: Mapping[str, Any]) -> bytes:
        """The frames that end a stream which has begun."""


class Gateway:
    def __init__(
        self, *, providers: Providers, principals: Principals, books: Books
    ) -> None:
        self._providers = providers
        self._principals = principals
        self._books = books

    async def answer(self, incoming: Incoming) -> bytes | AsyncGenerator[bytes]:
        """A whole answer, or a stream of which something has come already.

        Raises AppError where it fails before.
        """
        try:
            attempt = await self._attempt(incoming)
            account = await self._reserve(incoming, attempt)
            if not incoming.stream:
                return await self._whole(incoming, attempt, account)
            pieces = self._pieces(incoming, attempt, account)
            first = await anext(pieces)
        except AppError as error:
            raise told(error) from error
        return self._stream(incoming.principal, attempt, first, pieces)

    async def _attempt(self, incoming: Incoming) -> Attempt:
        provider, model = await self._providers.resolve(incoming.model)
        spoken = incoming.format.spoken
        if spoken is not None and getattr(provider, "speaks", None) == spoken:
            return _Passing(incoming, cast("Forwarder", provider), model)
        return _Translating(incoming, provider, model)

    async def _reserve(self, incoming: Incoming, attempt: Attempt) -> Account:
        principal, model = incoming.principal, attempt.model
        return await self._books.reserve(
            principal.user_id,
            model,
            kind="gateway",
            input_tokens=incoming.input_tokens,
            output_tokens=bodies.output_tokens(incoming.body, model),
            conversation=bodies.is_turn(incoming.messages),
            key=principal.key,
        )

    async def _whole(
        self, incoming: Incoming, attempt: Attempt, account: Account
    ) -> bytes:
        status, begun = "stopped", time.perf_counter()
        try:
            answer = await attempt.whole()
            status = "complete"
        except AppError:
            status = "error"
            raise
        finally:
            await _book(incoming, attempt, account, status, begun)
        return answer

    async def _pieces(
        self, incoming: Incoming, attempt: Attempt, account: Account
    ) -> AsyncGenerator[bytes]:
        status, begun, waits = "stopped", time.perf_counter(), True
        try:
            async with aclosing(attempt.pieces()) as pieces:
                async for piece in pieces:
                    if waits:
                        waits = False
                        waited = time.perf_counter() - begun
                        _first_token(attempt.model.provider).observe(waited)
                    yield piece
            status = "complete"
        except AppError:
            status = "error"
            raise
        finally:
            await _book(incoming, attempt, account, status, begun)

    async def _stream(
        self,
        principal: Principal,
        attempt: Attempt,
        first: bytes,
        pieces: AsyncGenerator[bytes],
    ) -> AsyncGenerator[bytes]:
        """It ends with an error's frames where the provider, or the key, fails."""
        cut = _Cut()
        async with aclosing(pieces):
            with self._principals.following(principal, cut):
                try:
                    yield first
                    async for piece in pieces:
                        yield piece
                except AppError as error:
                    yield attempt.fail(told(error).problem())
                except asyncio.CancelledError:
                    ended = cut.heard()
                    if ended is None:
                        raise
                    yield attempt.fail(ended.problem())


async def _book(
    incoming: Incoming, attempt: Attempt, account: Account, status: str, begun: float
) -> None:
    """Pay for an attempt, and log it, however it ended."""
    provider = attempt.model.provider
    _calls(provider, status).inc()
    if attempt.usage is None:
        account.cancel()
        used, paid = _NOTHING, 0
    else:
        used = _used(attempt)
        paid = account.settle(used)
        _tokens(provider, "input").inc(used.input_tokens)
        _tokens(provider, "output").inc(used.output_tokens)
    await account.log(
        status=status,
        used=used,
        paid=paid,
        seconds=time.perf_counter() - begun,
        messages=lambda: [
            incoming.messages[-1],
            {"role": "assistant", "content": attempt.text()},
        ],
        size=incoming.size + attempt.size(),
    )


class _Cut(Follower):
    """Ends a stream from outside: its key or session counts no more."""

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


class _Passing:
    """An answer whose bytes go through as they come."""

    def __init__(
        self, incoming: Incoming, provider: Forwarder, model: ModelInfo
    ) -> None:
        self._incoming = incoming
        self._provider = provider
        self.model = model
        self._scan = _scan(model.provider, provider.speaks, incoming.body)
        self._taken = False

    @property
    def ended(self) -> bool:
        return self._scan.ended and self._scan.usage is not None

    @property
    def usage(self) -> Usage | None:
        scan = self._scan
        if scan.usage is not None:
            return scan.usage
        if not self._taken or (scan.failure is not None and not scan.begun):
            return None
        return Usage(self._incoming.input_tokens, 0, estimated=True)

    async def whole(self) -> bytes:
        async with aclosing(self._forward()) as answer:
            try:
                body = await anext(answer)
            except ProviderStreamBrokenError:
                self._taken = True  # it had begun to answer, which it bills
                raise
        self._taken = True
        return self._scan.feed_whole(body)

    async def pieces(self) -> AsyncGenerator[bytes]:
        async with aclosing(self._forward()) as parts:
            async for piece in self._scanned(parts):
                yield piece
            with suppress(TimeoutError, ProviderError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    async for _ in parts:  # so that the connection can serve again
                        pass

    def _forward(self) -> AsyncGenerator[bytes]:
        incoming = self._incoming
        return self._provider.forward(
            self.model.id, incoming.body, betas=incoming.betas
        )

    async def _scanned(self, parts: AsyncGenerator[bytes]) -> AsyncGenerator[bytes]:
        scan, held = self._scan, b""
        async for part in parts:
            self._taken = True
            held += scan.feed(part)
            if scan.begun and held:
                yield held
                held = b""
            if scan.ended or scan.failure is not None:
                break
        scan.close()
        if scan.failure is not None:
            raise scan.failure
        if held:
            yield held

    def written(self) -> int:
        return self._scan.written()

    def text(self) -> str:
        return self._scan.text()

    def size(self) -> int:
        return self._scan.kept

    def fail(self, problem: Mapping[str, Any]) -> bytes:
        data = orjson.dumps(self._incoming.format.error(problem))
        if self._provider.speaks == "messages":
            return b"event: error\ndata: %b\n\n" % data
        return b"data: %b\n\n" % data


def _scan(who: str, spoken: Spoken, body: Json) -> Scan:
    if spoken == "messages":
        return MessagesScan(who)
    options = body.get("stream_options")
    asked = isinstance(options, dict) and bool(options.get("include_usage"))
    return ChatCompletionsScan(who, include_usage=asked)


class _Translating:
    """An answer whose events are written in the client's format."""

    def __init__(
        self, incoming: Incoming, provider: Provider, model: ModelInfo
    ) -> None:
        self._provider = provider
        ask = incoming.format.read(incoming.body)
        self.model = model
        self._request = replace(
            ask.request,
            model=model.id,
            max_tokens=bodies.output_tokens(incoming.body, model),
        )
        require_capabilities(self._request, model)
        self._writer = incoming.format.writer(ask, ask.request.model)
        self._texts: list[str] = []
        self.usage: Usage | None = None
        self.ended = False

    async def whole(self) -> bytes:
        async for event in self._provider.stream(self._request):
            self._note(event)
            self._writer.write(event)
        return orjson.dumps(self._writer.whole())

    async def pieces(self) -> AsyncGenerator[bytes]:
        held, begun = b"", False
        async with aclosing(self._provider.stream(self._request)) as events:  # type: ignore[type-var]  # every provider's stream is an async generator
            async for event in events:
                begun = self._note(event) or begun
                held += self._writer.write(event)
                if begun and held:
                    yield held
                    held = b""

    def _note(self, event: ProviderEvent) -> bool:
        """Keep what is to be booked and logged; whether it is part of the answer."""
        match event:
            case Usage():
                self.usage = event
                return False
            case Stop():
                self.ended = True
            case TextDelta() | ThinkingDelta():
                self._texts.append(event.text)
            case ToolUseStart():
                self._texts.append(event.name + event.input)
            case ToolInputDelta():
                self._texts.append(event.json)
        return True

    def written(self) -> int:
        return estimate_tokens(self.text())

    def text(self) -> str:
        return "".join(self._texts)

    def size(self) -> int:
        return sum(map(len, self._texts))

    def fail(self, problem: Mapping[str, Any]) -> bytes:
        return self._writer.fail(problem)


def _used(attempt: Attempt) -> Usage:
    """What was used; of an answer that broke off, the provider has not told all."""
    assert attempt.usage is not None
    if attempt.ended:
        return attempt.usage
    output = max(attempt.written(), attempt.usage.output_tokens)
    return replace(attempt.usage, output_tokens=output, estimated=True)
