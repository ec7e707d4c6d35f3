"""Models run by Ollama, found by itself where it answers.

Reference: "Generate a chat message", "Generate embeddings", "List models" and "Show
model details" in Ollama's API documentation. Its own API rather than the one it has in
OpenAI's form: only here it tells what a model can do, and takes the length of the
context that we count on.
"""

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import orjson

from app.core.config import ModelSettings
from app.core.http1 import Response
from app.integrations.llm.answers import ask, readable
from app.integrations.llm.base import (
    ChatRequest,
    ModelInfo,
    ProviderError,
    ProviderEvent,
    ProviderNotConfiguredError,
    ProviderStreamBrokenError,
    ProviderUnavailableError,
    Stop,
    StopReason,
    TextDelta,
    ThinkingDelta,
    ToolUseStart,
    Usage,
    joined,
)
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.embeddings import (
    Embedded,
    EmbedRequest,
    embedded,
    texts_of,
)
from app.integrations.llm.http import (
    Http,
    body_of,
    by_status,
    drain,
    refused,
    retry_after,
)
from app.integrations.llm.models import ModelList, fetch_json
from app.integrations.llm.ollama_api import (
    WHO,
    calling,
    formatted,
    messages,
    sampling,
    thinking,
)
from app.integrations.llm.tokens import TokenTally, estimate_input

OFF = "off"
"""The OLLAMA_BASE_URL that switches it off."""

ANSWER_SECONDS = 5.0
"""How long it may take to tell its models: it is near, or not there."""

ABSENT_SECONDS = 30.0
"""How long it is believed to be absent."""

MAX_LINE = 16 * 2**20

MOST_INPUTS = 32
"""Of a call for embeddings: one that is long says nothing until it has done all."""

_SETTING = "OLLAMA_BASE_URL"
_STOP_REASONS: Mapping[str, StopReason] = {"stop": "end_turn", "length": "max_tokens"}
_CAPABILITIES = {
    "completion": "text",
    "vision": "vision",
    "tools": "tools",
    "thinking": "thinking",
    "embedding": "embeddings",
}
_HEADERS = {"Content-Type": "application/json"}

Json = dict[str, Any]


class OllamaProvider:
    """`ollama/...`: what is pulled there, such as `ollama/llama3.2:latest`."""

    name = "ollama"

    def __init__(self, models: ModelSettings, catalogue: Catalogue, http: Http) -> None:
        self._settings = models
        self._catalogue = catalogue
        self._http = http
        self._base = models.ollama_base_url.rstrip("/")
        self._off = self._base.lower() == OFF
        self._empty = False
        self._described: dict[tuple[str, str], ModelInfo | None] = {}
        self._list = ModelList(
            WHO,
            self._ask,
            patience=models.connect_seconds,
            after_failure=ABSENT_SECONDS,
            expected=False,
        )

    @property
    def missing(self) -> str | None:
        if self._off:
            return f"Ollama is switched off: set {_SETTING} to its address."
        if self._list.failed:
            return (
                f"Ollama does not answer at {self._base}: start it there, or set "
                f"{_SETTING} to its address."
            )
        if self._empty:
            return "Ollama has no model yet: `ollama pull llama3.2` gets it one."
        return None

    async def models(self) -> list[ModelInfo]:
        """What it has pulled and is of use; empty where it does not answer."""
        return [] if self._off else await self._list.get()

    async def stream(self, request: ChatRequest) -> AsyncIterator[ProviderEvent]:
        if self._off:
            raise ProviderNotConfiguredError(str(self.missing))
        body = await self._body(request)
        lines, reply = _Lines(), _Reply(request)
        async with self._http.request(
            "POST",
            f"{self._base}/api/chat",
            setting=_SETTING,
            headers=_HEADERS,
            body=orjson.dumps(body),
        ) as response:
            if response.status != HTTPStatus.OK:
                raise _refused(response, await body_of(response))
            yield reply.usage_so_far()
            async for chunk in response.parts():
                for event in joined(reply.read(lines.feed(chunk))):
                    yield event
                if reply.stopped:
                    await drain(response)
                    return
        for event in reply.read(lines.feed(b"\n")):
            yield event
        if not reply.stopped:
            raise ProviderStreamBrokenError(f"{WHO} broke off its answer.")

    def most_inputs(self, model: str) -> int:
        del model  # of any
        return MOST_INPUTS

    async def embed(self, request: EmbedRequest) -> Embedded:
        if self._off:
            raise ProviderNotConfiguredError(str(self.missing))
        info = await self._info(request.model)
        asked: Json = {
            "model": request.model,
            "input": texts_of(request, WHO),
            # Else it would cut off what is too long, silently.
            "truncate": False,
            "options": {"num_ctx": info.context_window},
        }
        if request.dimensions is not None:
            asked["dimensions"] = request.dimensions
        answer, _ = await ask(
            self._http,
            f"{self._base}/api/embed",
            who=WHO,
            setting=_SETTING,
            headers=_HEADERS,
            body=orjson.dumps(asked),
            refusal=_refused,
        )
        with readable(WHO):
            tokens = answer.get("prompt_eval_count")
            return embedded(request, WHO, answer["embeddings"], tokens)

    async def close(self) -> None:
        await self._http.close()

    async def _info(self, model: str) -> ModelInfo:
        name = f"{self.name}/{model}"
        listed = {info.name: info for info in await self.models()}
        return self._catalogue.current(listed.get(name) or self._unlisted(name))

    async def _body(self, request: ChatRequest) -> Json:
        info = await self._info(request.model)
        return {
            "model": request.model,
            "messages": messages(request),
            "stream": True,
            # Without it Ollama would cut a long chat to a length of its own, silently.
            "options": {
                "num_ctx": info.context_window,
                "num_predict": request.max_tokens,
                **sampling(request),
            },
            **calling(request),
            **thinking(request, info),
            **formatted(request),
        }

    def _unlisted(self, name: str) -> ModelInfo:
        window = self._settings.ollama_context_tokens
        return replace(self._catalogue.info(name), context_window=window)

    async def _ask(self) -> list[ModelInfo]:
        async with asyncio.timeout(ANSWER_SECONDS):
            answer = await fetch_json(
                self._http,
                "GET",
                f"{self._base}/api/tags",
                setting=_SETTING,
                headers=_HEADERS,
            )
        tags = [(tag["model"], tag.get("digest", "")) for tag in answer["models"]]
        new = [tag for tag in tags if tag not in self._described]
        found = await asyncio.gather(*(self._describe(model) for model, _ in new))
        known = self._described | dict(zip(new, found, strict=True))
        self._described = {tag: known[tag] for tag in tags}
        infos = [info for info in self._described.values() if info is not None]
        self._empty = not infos
        return infos

    async def _describe(self, model: str) -> ModelInfo | None:
        """What a model can do; None where that is neither to chat nor to embed."""
        shown = await fetch_json(
            self._http,
            "POST",
            f"{self._base}/api/show",
            setting=_SETTING,
            headers=_HEADERS,
            body=orjson.dumps({"model": model}),
        )
        info = self._catalogue.info(f"{self.name}/{model}")
        # Ollama before 0.6.4 does not tell.
        if told := shown.get("capabilities"):
            able = frozenset(_CAPABILITIES[c] for c in told if c in _CAPABILITIES)
        else:
            able = info.capabilities
        if not able & {"text", "embeddings"}:
            return None
        if self._catalogue.entry_name(info.name):
            return info
        facts = shown.get("model_info") or {}
        window = min(
            _fact(facts, "context_length", 4096), self._settings.ollama_context_tokens
        )
        described = replace(info, context_window=window, capabilities=able)
        if "text" not in able:
            length = _fact(facts, "embedding_length", 0)
            return replace(described, max_output_tokens=0, dimensions=length or None)
        longest = min(info.max_output_tokens or window, window // 2)
        return replace(described, max_output_tokens=longest)


def _fact(facts: Mapping[str, Any], name: str, default: int) -> int:
    """`llama.context_length` or whatever the architecture's name is."""
    return int(next((v for k, v in facts.items() if k.endswith(f".{name}")), default))


class _Lines:
    """Turns bytes, split anywhere, into lines; the last needs no end."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0

    def feed(self, chunk: bytes) -> list[bytes]:
        """An unfinished line waits unjoined, so that a long one costs no more."""
        head, end, tail = chunk.rpartition(b"\n")
        if not end:
            self._parts.append(chunk)
            self._held += len(chunk)
            if self._held > MAX_LINE:
                raise ProviderStreamBrokenError("A line of the answer is too long.")
            return []
        lines = b"".join([*self._parts, head]).split(b"\n")
        self._parts, self._held = [tail], len(tail)
        return [line for line in lines if line.strip()]


class _Reply:
    """Reads the lines of one answer."""

    def __init__(self, request: ChatRequest) -> None:
        self._input = estimate_input(request)
        self._output = TokenTally()
        self._called = False
        self.stopped = False

    def usage_so_far(self) -> Usage:
        """Our estimate: figures come only with the last line."""
        return Usage(self._input, self._output.tokens, estimated=True)

    def read(self, lines: Iterable[bytes]) -> Iterator[ProviderEvent]:
        """The events of these, up to the end of the answer."""
        try:
            for line in lines:
                yield from self._line(orjson.loads(line))
                if self.stopped:
                    return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ProviderStreamBrokenError(
                f"{WHO} sent a line that we cannot read."
            ) from error

    def _line(self, line: Mapping[str, Any]) -> Iterator[ProviderEvent]:
        if "error" in line:
            # It is a sentence, without any name to go by.
            raise refused(ProviderUnavailableError, WHO, "an error", str(line["error"]))
        message = line.get("message") or {}
        if thinking := message.get("thinking"):
            self._output.add(thinking)
            yield ThinkingDelta(thinking)
        if text := message.get("content"):
            self._output.add(text)
            yield TextDelta(text)
        for call in message.get("tool_calls") or ():
            yield self._call(call)
        if line["done"]:
            yield self._usage(line)
            self.stopped = True
            reason = _STOP_REASONS.get(line.get("done_reason", ""), "end_turn")
            ends = reason == "end_turn" and self._called
            yield Stop("tool_use" if ends else reason)

    def _call(self, call: Mapping[str, Any]) -> ToolUseStart:
        """A call comes whole; only newer servers give it an id."""
        self._called = True
        function = call["function"]
        given = orjson.dumps(function.get("arguments") or {}).decode()
        self._output.add(function["name"] + given)
        id_ = call.get("id") or f"call_{secrets.token_hex(8)}"
        return ToolUseStart(id_, function["name"], given)

    def _usage(self, line: Mapping[str, Any]) -> Usage:
        """It leaves the prompt out where it had it cached from the call before."""
        given, written = line.get("prompt_eval_count"), line.get("eval_count")
        return Usage(
            self._input if given is None else int(given),
            self._output.tokens if written is None else int(written),
            estimated=given is None or written is None,
        )


def _refused(response: Response, body: bytes) -> ProviderError:
    try:
        words = str(orjson.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        words = ""
    kind, name = by_status(response.status), f"status {response.status}"
    return refused(kind, WHO, name, words, wait=retry_after(response.headers))
