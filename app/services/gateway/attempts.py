"""One call of one provider, whose bytes go through or whose events are translated."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, Protocol

import orjson

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
from app.integrations.llm.tokens import estimate_tokens
from app.services.gateway import body as bodies
from app.services.gateway.fields import Json
from app.services.gateway.incoming import Incoming
from app.services.gateway.scanning import ChatCompletionsScan, MessagesScan, Scan


class Attempt(Protocol):
    """`usage` is what the provider has told, None while it has not taken the call.

    `ended` tells whether that is the last word.
    """

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


def attempt_by(provider: Provider, model: ModelInfo, incoming: Incoming) -> Attempt:
    """Raises InvalidFieldError for what cannot be translated."""
    spoken = incoming.format.spoken
    if spoken is not None and getattr(provider, "speaks", None) == spoken:
        return _Passing(incoming, provider, model)  # type: ignore[arg-type]  # it speaks, so it forwards
    return _Translating(incoming, provider, model)


def used_by(attempt: Attempt) -> Usage | None:
    """What is billed; of an answer that broke off, the provider has not told all."""
    usage = attempt.usage
    if usage is None or attempt.ended:
        return usage
    output = max(attempt.written(), usage.output_tokens)
    return replace(usage, output_tokens=output, estimated=True)


class _Passing:
    """An answer whose bytes go through as they come."""

    def __init__(
        self, incoming: Incoming, provider: Forwarder, model: ModelInfo
    ) -> None:
        self._incoming = incoming
        self._provider = provider
        self._model = model
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
        incoming = self._incoming
        try:
            body = await self._provider.forward_whole(
                self._model.id, incoming.body, betas=incoming.betas
            )
        except ProviderStreamBrokenError:
            self._taken = True  # it had begun to answer, which it bills
            raise
        self._taken = True
        return self._scan.feed_whole(body)

    async def pieces(self) -> AsyncGenerator[bytes]:
        incoming = self._incoming
        answer = self._provider.forward(
            self._model.id, incoming.body, betas=incoming.betas
        )
        try:
            async for piece in self._scanned(answer):
                yield piece
            with suppress(TimeoutError, ProviderError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    async for _ in answer:  # so that the connection can serve again
                        pass
        finally:
            await answer.aclose()

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
