"""A fake of an OpenAI-compatible server, on the real wire.

It has /v1/models, /v1/chat/completions, streamed or whole, /v1/embeddings, and vLLM's
/v1/rerank.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from app.integrations.llm.messages_api import GO_ON
from tests.fakes.faults import Fault, FaultPlan
from tests.fakes.model_server import (
    Call,
    FakeServer,
    Script,
    cut_at,
    main,
    ranked,
    relevance_of,
    reply_pieces,
    vector_of,
    whole,
)

MODELS = ("fake-large", "fake-small")
EMBEDDER = "fake-embed"
RERANKER = "fake-rerank"
"""It is not in the list of models."""
DIMENSIONS = 8
"""Of its vectors; fewer may be asked for."""
MOST_INPUTS = 2048
CONTEXT_WINDOW = 65_536

_EFFORTS = {None, "none", "minimal", "low", "medium", "high", "xhigh"}
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class FakeOpenAI(FakeServer):
    """With an `api_key`, it takes no other; without one, any or none.

    `meaning` makes the vector of an input, so long; `relevance` the score of a text.
    """

    def __init__(self, plan: FaultPlan | None = None, api_key: str = "") -> None:
        super().__init__(plan)
        self.api_key = api_key
        self.times_listed = 0
        self.meaning: Callable[[Any, int], list[float]] = vector_of
        self.relevance: Callable[[str, str], float] = relevance_of
        self.app.router.add_get("/v1/models", self._models)
        self.app.router.add_post("/v1/chat/completions", self._complete)
        self.app.router.add_post("/v1/embeddings", self._embed)
        self.app.router.add_post("/v1/rerank", self._rerank)

    @property
    def base_url(self) -> str:
        return f"{self.url}/v1"

    async def _models(self, request: web.Request) -> web.Response:
        self.times_listed += 1
        if not self.plan.lists_models:
            return _error(500, "server_error", None, "The list is lost.")
        if not self._admits(request):
            return _error(401, "invalid_request_error", "invalid_api_key", "Wrong key.")
        names = (*MODELS, EMBEDDER)
        data = [{"id": name, "object": "model", "owned_by": "fake"} for name in names]
        first = {**data[0], "max_model_len": CONTEXT_WINDOW}
        return web.json_response({"object": "list", "data": [first, *data[1:]]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        if refusal := self._refusal(request, call, fault, _mistake(body)):
            return refusal
        script = self._script(body) if body.get("stream") else self._whole(body)
        return await self.play(request, call, fault, script)

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        if refusal := self._refusal(request, call, fault, _embedding_mistake(body)):
            return refusal
        length = body.get("dimensions", DIMENSIONS)
        vectors = [self.meaning(one, length) for one in body["input"]]
        data = [
            {"object": "embedding", "index": number, "embedding": vector}
            for number, vector in enumerate(vectors)
        ]
        tokens = self.plan.input_tokens
        usage = {"usage": {"prompt_tokens": tokens, "total_tokens": tokens}}
        answer = {
            "object": "list",
            "data": data[::-1],  # their `index` counts, not their order
            "model": body["model"],
            **(usage if self.plan.tells_usage else {}),
        }
        script = whole(answer, exception={"error": self._error()})
        return await self.play(request, call, fault, script)

    async def _rerank(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        if refusal := self._refusal(request, call, fault, _reranking_mistake(body)):
            return refusal
        told = ranked(body["query"], body["documents"], self.relevance)
        results = [
            {**one, "document": {"text": body["documents"][one["index"]]}}
            for one in told[: body["top_n"]]
        ]
        usage = {"usage": {"total_tokens": self.plan.input_tokens}}
        answer = {
            "id": "rerank-fake",
            "model": body["model"],
            "results": results,
            **(usage if self.plan.tells_usage else {}),
        }
        script = whole(answer, exception={"error": self._error()})
        return await self.play(request, call, fault, script)

    def _refusal(
        self,
        request: web.Request,
        call: Call,
        fault: Fault,
        mistake: web.Response | None,
    ) -> web.Response | None:
        refusal = mistake if self._admits(request) else _wrong_key()
        told = self.plan.words_of_error
        if fault == "throttle_first":
            slow = told or "Slow down."
            refusal = _error(429, "requests", "rate_limit_exceeded", slow)
        elif fault == "unavailable":
            busy = told or "The server is overloaded."
            refusal = _error(503, "server_error", None, busy)
        if refusal is not None:
            call.end("refused")
            refusal.headers.update(self.plan.refusal_headers())
        return refusal

    def _admits(self, request: web.Request) -> bool:
        authorization = request.headers.get("Authorization")
        return not self.api_key or authorization == f"Bearer {self.api_key}"

    def _usage(self, words: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self.plan.input_tokens,
            "completion_tokens": words,
            "total_tokens": self.plan.input_tokens + words,
            "prompt_tokens_details": {"cached_tokens": 0},
        }

    def _whole(self, body: Mapping[str, Any]) -> Script:
        plan = self.plan
        words, _ = cut_at(reply_pieces(plan, body["messages"], GO_ON), _stops(body))
        message: dict[str, Any] = {"role": "assistant", "content": "".join(words)}
        if plan.thinking:
            message["reasoning_content"] = plan.thinking
        if plan.tool:
            function = {"name": plan.tool, "arguments": plan.tool_input}
            call = {"id": "call_1", "type": "function", "function": function}
            message["tool_calls"] = [call]
        reason = "tool_calls" if plan.tool else "stop"
        choice = {"index": 0, "message": message, "logprobs": None}
        answer = {
            **_common("chat.completion", body["model"]),
            "choices": [{**choice, "finish_reason": reason}],
            **({"usage": self._usage(len(words))} if plan.tells_usage else {}),
        }
        return whole(answer, exception={"error": self._error()})

    def _error(self) -> dict[str, Any]:
        code = self.plan.exception or "rate_limit_exceeded"
        told = self.plan.words_of_error or "Broken in the middle."
        broken = {"message": told, "param": None}
        return {**broken, "type": "error", "code": code}

    def _script(self, body: Mapping[str, Any]) -> Script:
        words = reply_pieces(self.plan, body["messages"], GO_ON)
        words, stopped = cut_at(words, _stops(body))
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        say = _Chunks(body["model"], usage=asked)
        start = [say.delta({"role": "assistant", "content": ""})]
        if self.plan.thinking:
            start.append(say.delta({"reasoning_content": self.plan.thinking}))
        end = [*map(say.delta, _calls(self.plan))]
        end.append(say.delta({}, "tool_calls" if end else "stop", stopped))
        if asked and self.plan.tells_usage:
            end.append(say.event({"choices": [], "usage": self._usage(len(words))}))
        error = json.dumps({"error": self._error()}).encode()
        return Script(
            content_type="text/event-stream",
            start=start,
            chunks=[say.delta({"content": word}) for word in words],
            end=[*end, b"data: [DONE]\n\n"],
            exception=b"data: %b\n\n" % error,
            damaged=b'data: {"choices": [{"del\n\n',
        )


def _reranking_mistake(body: Mapping[str, Any]) -> web.Response | None:
    documents = body.get("documents") or []
    fits = isinstance(body.get("query"), str) and body.get("top_n", 0) >= 1
    fits = fits and bool(documents) and all(isinstance(one, str) for one in documents)
    fits = fits and body.keys() == {"model", "query", "documents", "top_n"}
    if body.get("model") == RERANKER and fits:
        return None
    return _error(400, "BadRequestError", None, "Malformed request.")


def _calls(plan: FaultPlan) -> list[dict[str, Any]]:
    """A call of a tool: its name first, then its arguments in pieces."""
    if not plan.tool:
        return []
    head = {"index": 0, "id": "call_1", "type": "function"}
    functions = [{"arguments": piece} for piece in plan.inputs()]
    first = {**head, "function": {"name": plan.tool, "arguments": ""}}
    rest = [{"index": 0, "function": function} for function in functions]
    return [{"tool_calls": [call]} for call in [first, *rest]]


def _stops(body: Mapping[str, Any]) -> list[str]:
    stop = body.get("stop") or []
    return [stop] if isinstance(stop, str) else stop


def _common(kind: str, model: str) -> dict[str, Any]:
    told = {"id": "chatcmpl-fake", "object": kind}
    return {**told, "created": 1_790_000_000, "model": model}


class _Chunks:
    """Of one stream; where its usage is asked for, each has that field."""

    def __init__(self, model: str, *, usage: bool) -> None:
        self._common = _common("chat.completion.chunk", model)
        if usage:
            self._common["usage"] = None

    def event(self, fields: Mapping[str, Any]) -> bytes:
        data = json.dumps({**self._common, **fields}, ensure_ascii=False)
        return b"data: %b\n\n" % data.encode()

    def delta(
        self,
        delta: Mapping[str, Any],
        finish_reason: str | None = None,
        stop_reason: str | None = None,
    ) -> bytes:
        """`stop_reason` is the stop sequence that ended the answer: vLLM tells it."""
        choice = {"index": 0, "delta": delta, "logprobs": None}
        told = {} if stop_reason is None else {"stop_reason": stop_reason}
        choice |= {"finish_reason": finish_reason, **told}
        return self.event({"choices": [choice]})


def _wrong_key() -> web.Response:
    message = "Incorrect API key provided: sk-wr***ng."
    return _error(401, "invalid_request_error", "invalid_api_key", message)


def _error(status: int, type_: str, code: str | None, message: str) -> web.Response:
    error = {"message": message, "type": type_, "param": None, "code": code}
    return web.json_response({"error": error}, status=status)


def _mistake(body: Mapping[str, Any]) -> web.Response | None:
    """What OpenAI says of a body that it does not take."""
    if body.get("model") not in MODELS:
        message = f"The model {body.get('model')!r} does not exist."
        return _error(404, "invalid_request_error", "model_not_found", message)
    messages = body.get("messages")
    roles = {"system", "developer", "user", "assistant", "tool"}
    if not messages or any(message.get("role") not in roles for message in messages):
        return _error(400, "invalid_request_error", None, "Invalid messages.")
    if not _fits(body):
        return _error(400, "invalid_request_error", None, "Invalid tool_choice.")
    if not _asks(body):
        return _error(400, "invalid_request_error", None, "Invalid parameters.")
    return None


def _embedding_mistake(body: Mapping[str, Any]) -> web.Response | None:
    """What OpenAI says of a body that it embeds nothing of."""
    if body.get("model") != EMBEDDER:
        message = f"The model {body.get('model')!r} does not exist."
        return _error(404, "invalid_request_error", "model_not_found", message)
    inputs, length = body.get("input"), body.get("dimensions", DIMENSIONS)
    texts = isinstance(inputs, list) and all(isinstance(i, str) and i for i in inputs)
    tokens = isinstance(inputs, list) and all(
        isinstance(i, list) and i and all(type(t) is int for t in i) for i in inputs
    )
    if not inputs or not (texts or tokens) or len(inputs) > MOST_INPUTS:
        return _error(400, "invalid_request_error", None, "'$.input' is invalid.")
    if type(length) is not int or not 1 <= length <= DIMENSIONS:
        return _error(400, "invalid_request_error", None, "Invalid 'dimensions'.")
    if body.keys() - {"model", "input", "dimensions", "encoding_format", "user"}:
        return _error(400, "invalid_request_error", None, "Unknown parameter.")
    return None


def _asks(body: Mapping[str, Any]) -> bool:
    """Whether what says how to answer is of the shape that OpenAI knows."""
    stops = _stops(body)
    match body.get("response_format"):
        case None | {"type": "text" | "json_object"}:
            formatted = True
        case {"type": "json_schema", "json_schema": {"name": name, "schema": dict()}}:
            formatted = bool(_NAME.fullmatch(name))
        case _:
            formatted = False
    return (
        formatted
        and 0 <= body.get("temperature", 1) <= 2
        and 0 <= body.get("top_p", 1) <= 1
        and len(stops) <= 4
        and all(isinstance(stop, str) for stop in stops)
        and body.get("reasoning_effort") in _EFFORTS
    )


def _fits(body: Mapping[str, Any]) -> bool:
    """Whether the choice of tools, if any, is one among those of the body."""
    choice = body.get("tool_choice")
    if choice is None:
        return True
    names = [tool["function"]["name"] for tool in body.get("tools") or ()]
    if isinstance(choice, dict):
        return choice["type"] == "function" and choice["function"]["name"] in names
    return bool(names) and choice in {"auto", "required", "none"}


if __name__ == "__main__":
    main(FakeOpenAI)
