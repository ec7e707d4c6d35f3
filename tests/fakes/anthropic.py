"""A fake of Anthropic's own API, on the real wire.

It has /v1/models, /v1/messages and /v1/messages/count_tokens.
"""

import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.fakes.faults import Fault, FaultPlan
from tests.fakes.messages import counted_script, miscounted, mistake, script
from tests.fakes.model_server import Call, FakeServer, main

API_KEY = "sk-ant-for-tests"
MODELS: tuple[dict[str, Any], ...] = (
    {
        "id": "claude-next-9",
        "max_input_tokens": 500_000,
        "max_tokens": 50_000,
        "capabilities": {
            "image_input": {"supported": True},
            "pdf_input": {"supported": False},
        },
    },
    {"id": "claude-haiku-4-5-20251001"},
    {"id": "claude-opus-5"},
    {"id": "claude-1", "lifecycle": "retired"},
)

_KNOWN_MODEL = re.compile(r"^claude-[a-z0-9-]+$")


class FakeAnthropic(FakeServer):
    def __init__(self, plan: FaultPlan | None = None) -> None:
        super().__init__(plan)
        self.times_listed = 0
        self.app.router.add_get("/v1/models", self._models)
        self.app.router.add_post("/v1/messages", self._messages)
        self.app.router.add_post("/v1/messages/count_tokens", self._count)

    async def _models(self, request: web.Request) -> web.Response:
        self.times_listed += 1
        if not self.plan.lists_models:
            return _error(500, "api_error", "The list is lost.")
        if refusal := _refusal(request):
            return _error(*refusal)
        data = [{"type": "model", **model} for model in MODELS]
        return web.json_response({"data": data, "has_more": False})

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        refusal = _refusal(request) or _invalid(body, mistake)
        if refusal := _refused(fault, refusal):
            return self._answer(call, *refusal)
        return await self.play(request, call, fault, script(self.plan, body))

    async def _count(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        refusal = _refusal(request) or _invalid(body, miscounted)
        if refusal := _refused(fault, refusal):
            return self._answer(call, *refusal)
        counted = counted_script(self.plan, "input_tokens")
        return await self.play(request, call, fault, counted)

    def _answer(self, call: Call, status: int, type_: str, text: str) -> web.Response:
        call.end("refused")
        text = self.plan.words_of_error or text
        return _error(status, type_, text, self.plan.refusal_headers())


def _refused(
    fault: Fault, refusal: tuple[int, str, str] | None
) -> tuple[int, str, str] | None:
    if fault == "throttle_first":
        return 429, "rate_limit_error", "You are too fast."
    if fault == "unavailable":
        return 503, "overloaded_error", "Overloaded"
    return refusal


def _refusal(request: web.Request) -> tuple[int, str, str] | None:
    if request.headers.get("x-api-key") != API_KEY:
        return 401, "authentication_error", "invalid x-api-key"
    if request.headers.get("anthropic-version") != "2023-06-01":
        return 400, "invalid_request_error", "anthropic-version: header is required"
    return None


def _invalid(
    body: Any, mistake_of: Callable[[str, Any], str]
) -> tuple[int, str, str] | None:
    model = str(body.get("model", ""))
    if not _KNOWN_MODEL.match(model):
        return 404, "not_found_error", f"model: {model}"
    wrong = mistake_of(model, body)
    return (400, "invalid_request_error", wrong) if wrong else None


def _error(
    status: int, type_: str, message: str, headers: dict[str, str] | None = None
) -> web.Response:
    error = {"type": "error", "error": {"type": type_, "message": message}}
    return web.json_response(error, status=status, headers=headers)


if __name__ == "__main__":
    main(FakeAnthropic)
