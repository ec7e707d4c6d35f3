"""A fake of Ollama, on the real wire: /api/tags, /api/show, /api/chat, /api/embed."""

import json
from collections.abc import Mapping
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
    reply_pieces,
    vector_of,
    whole,
)

MODELS: Mapping[str, dict[str, Any]] = {
    "llama3.2:latest": {
        "capabilities": ["completion", "tools"],
        "model_info": {"llama.context_length": 131_072},
    },
    "tiny-vision:1b": {
        "capabilities": ["completion", "vision", "thinking"],
        "model_info": {"gemma3.context_length": 6144},
    },
    "nomic-embed-text:latest": {
        "capabilities": ["embedding"],
        "model_info": {"nomic.context_length": 2048, "nomic.embedding_length": 8},
    },
    "reranker:1b": {"capabilities": ["rerank"], "model_info": {}},
    "old:7b": {},
}


class FakeOllama(FakeServer):
    def __init__(self, plan: FaultPlan | None = None) -> None:
        super().__init__(plan)
        self.models = dict(MODELS)
        self.times_listed = 0
        self.times_shown = 0
        self.app.router.add_get("/api/tags", self._tags)
        self.app.router.add_post("/api/show", self._show)
        self.app.router.add_post("/api/chat", self._chat)
        self.app.router.add_post("/api/embed", self._embed)
        self.knows_dimensions = True

    async def _tags(self, _request: web.Request) -> web.Response:
        self.times_listed += 1
        if not self.plan.lists_models:
            return web.json_response({"error": "the list is lost"}, status=500)
        models = [
            {"name": name, "model": name, "digest": f"sha256:{name}"}
            for name in self.models
        ]
        return web.json_response({"models": models})

    async def _show(self, request: web.Request) -> web.Response:
        self.times_shown += 1
        return web.json_response(self.models[(await request.json())["model"]])

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        if refusal := self._refused(call, fault, _refusal(body, self.models)):
            return refusal
        return await self.play(request, call, fault, self._script(body))

    async def _embed(self, request: web.Request) -> web.StreamResponse:
        """Older servers know no `dimensions`, and pass them over."""
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        if refusal := self._refused(call, fault, _unfit(body, self.models)):
            return refusal
        told = self.models[body["model"]]["model_info"]["nomic.embedding_length"]
        length = body.get("dimensions", told) if self.knows_dimensions else told
        tokens = {"prompt_eval_count": self.plan.input_tokens}
        answer = {
            "model": body["model"],
            "embeddings": [vector_of(text, length) for text in body["input"]],
            "total_duration": 14143917,
            **(tokens if self.plan.tells_usage else {}),
        }
        script = whole(answer, exception={"error": "an error was encountered"})
        return await self.play(request, call, fault, script)

    def _refused(
        self, call: Call, fault: Fault, refusal: tuple[int, str] | None
    ) -> web.Response | None:
        if fault == "throttle_first":
            refusal = (429, "too many requests")
        elif fault == "unavailable":
            refusal = (503, "server busy, please try again. maximum pending requests")
        if refusal is None:
            return None
        call.end("refused")
        status, error = refusal
        error = self.plan.words_of_error or error
        headers = self.plan.refusal_headers()
        return web.json_response({"error": error}, status=status, headers=headers)

    def _script(self, body: Mapping[str, Any]) -> Script:
        plan, model = self.plan, body["model"]
        words = reply_pieces(plan, body["messages"], GO_ON)
        words, _ = cut_at(words, body.get("options", {}).get("stop", ()))

        def line(message: dict[str, Any], **rest: Any) -> bytes:
            said = {"role": "assistant", "content": "", **message}
            told = {"model": model, "message": said, "done": False, **rest}
            return json.dumps(told, ensure_ascii=False).encode() + b"\n"

        function = {"name": plan.tool, "arguments": json.loads(plan.tool_input)}
        figures = {"prompt_eval_count": plan.input_tokens, "eval_count": len(words)}
        end = line(
            {}, done=True, done_reason="stop", **(figures if plan.tells_usage else {})
        )
        told = plan.words_of_error or "an error was encountered"
        calls = [line({"tool_calls": [{"function": function}]})] if plan.tool else []
        return Script(
            content_type="application/x-ndjson",
            start=[line({"thinking": plan.thinking})] if plan.thinking else [],
            chunks=[line({"content": word}) for word in words],
            end=[*calls, end],
            exception=json.dumps({"error": told}).encode() + b"\n",
            damaged=b'{"model": "llama3.2", "mess\n',
        )


def _refusal(body: Any, models: Mapping[str, Any]) -> tuple[int, str] | None:
    if body.get("model") not in models:
        return 404, f"model {body.get('model')!r} not found"
    messages = body.get("messages") or []
    roles = {"system", "user", "assistant", "tool"}
    if any(m.get("role") not in roles or not _is_text(m) for m in messages):
        return 400, "invalid message"
    if body.get("think") and "thinking" not in models[body["model"]]["capabilities"]:
        return 400, f"{body['model']!r} does not support thinking"
    if isinstance(body.get("think"), str) and "gpt-oss" not in body["model"]:
        return 400, f"think value {body['think']!r} is not supported for this model"
    if body.get("format") != "json" and not isinstance(body.get("format", {}), dict):
        return 400, "invalid format"
    return None


def _unfit(body: Any, models: Mapping[str, Any]) -> tuple[int, str] | None:
    """Why nothing of a body is embedded."""
    if body.get("model") not in models:
        return 404, f"model {body.get('model')!r} not found"
    if "embedding" not in models[body["model"]].get("capabilities", ()):
        return 400, f"{body['model']!r} does not support embeddings"
    inputs, window = body.get("input"), body.get("options", {}).get("num_ctx", 4096)
    if not isinstance(inputs, list) or not all(isinstance(i, str) for i in inputs):
        return 400, "invalid input type"
    if body.get("truncate") is False and any(len(i.split()) > window for i in inputs):
        return 400, "the input length exceeds the context length"
    return None


def _is_text(message: Mapping[str, Any]) -> bool:
    """Ollama takes a message's content as one string, and nothing else."""
    return isinstance(message.get("content"), str)


if __name__ == "__main__":
    main(FakeOllama)
