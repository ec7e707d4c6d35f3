"""A fake of Bedrock's InvokeModelWithResponseStream for Claude, on the real wire.

Its event-stream encoder is its own, so that the reader under test is not measured by
itself. It checks signatures by having botocore compute them again, and refuses wrong
bodies as AWS does.
"""

import base64
import json
import re
import struct
import zlib
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from app.integrations.llm.messages_api import GO_ON
from tests.fakes.faults import FaultPlan
from tests.fakes.model_server import (
    Call,
    FakeServer,
    Script,
    alternating,
    main,
    reply_pieces,
    text_of,
)

REGION = "us-east-1"
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
API_KEY = "bedrock-api-key-for-tests"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/bedrock/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)
_KNOWN_MODEL = re.compile(r"^(arn:aws:bedrock:.+|([a-z-]+\.)?anthropic\.claude-.+)$")
_TAKES_PREFILL = re.compile(r"claude-(3|(opus|sonnet|haiku)-4-(1|5|2025))")


def encode(headers: Mapping[str, str], payload: bytes) -> bytes:
    """An event-stream frame; all its headers are strings (type 7)."""
    block = b"".join(
        struct.pack(">B", len(name)) + name.encode() + b"\x07" + _sized(value.encode())
        for name, value in headers.items()
    )
    head = struct.pack(">II", 16 + len(block) + len(payload), len(block))
    head += struct.pack(">I", zlib.crc32(head))
    frame = head + block + payload
    return frame + struct.pack(">I", zlib.crc32(frame))


def _sized(value: bytes) -> bytes:
    return struct.pack(">H", len(value)) + value


def chunk(event: Mapping[str, Any]) -> bytes:
    """A Messages event as Bedrock sends it, `p` being padding."""
    data = base64.b64encode(json.dumps(event, ensure_ascii=False).encode()).decode()
    return encode(
        {
            ":event-type": "chunk",
            ":content-type": "application/json",
            ":message-type": "event",
        },
        json.dumps({"bytes": data, "p": "abcdefgh"}).encode(),
    )


def exception(name: str, message: str) -> bytes:
    return encode(
        {
            ":exception-type": name,
            ":content-type": "application/json",
            ":message-type": "exception",
        },
        json.dumps({"message": message}).encode(),
    )


class FakeBedrock(FakeServer):
    def __init__(self, plan: FaultPlan | None = None) -> None:
        super().__init__(plan)
        path = "/model/{model}/invoke-with-response-stream"
        self.app.router.add_post(path, self._invoke)

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        model = unquote(request.match_info["model"])
        refusal = await _refusal(request) or _invalid(model, body)
        if fault == "throttle_first":
            refusal = (429, "ThrottlingException", "Too many requests, please wait.")
        elif fault == "unavailable":
            refusal = (503, "ServiceUnavailableException", "Bedrock is unavailable.")
        if refusal:
            return _answer(call, *refusal)
        return await self.play(request, call, fault, self._script(body))

    def _script(self, body: Mapping[str, Any]) -> Script:
        plan = self.plan
        words = reply_pieces(plan, body["messages"], GO_ON)
        texts = [chunk(_delta({"type": "text_delta", "text": w})) for w in words]
        name = plan.exception or "throttlingException"
        damaged = bytearray(texts[-1] if texts else b"\0")
        damaged[-1] ^= 1
        return Script(
            content_type="application/vnd.amazon.eventstream",
            start=[chunk(event) for event in _start(plan)],
            chunks=texts,
            end=[chunk(event) for event in _end(plan, len(words))],
            exception=exception(name, "Too many tokens, please wait."),
            damaged=bytes(damaged),
        )


def _start(plan: FaultPlan) -> list[dict[str, Any]]:
    usage = {
        "input_tokens": plan.input_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "output_tokens": 1,
    }
    message: dict[str, Any] = {
        "id": "msg_bdrk_1",
        "type": "message",
        "role": "assistant",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        **({"usage": usage} if plan.tells_usage else {}),
    }
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": message},
        {"type": "ping"},
    ]
    if plan.thinking:
        block = {"type": "thinking", "thinking": "", "signature": ""}
        thought = {"type": "thinking_delta", "thinking": plan.thinking}
        events += [
            {"type": "content_block_start", "index": 0, "content_block": block},
            _delta(thought),
            _delta({"type": "signature_delta", "signature": "c2lnbmVk"}),
            {"type": "content_block_stop", "index": 0},
        ]
    block = {"type": "text", "text": ""}
    return [
        *events,
        {"type": "content_block_start", "index": 1, "content_block": block},
    ]


def _end(plan: FaultPlan, words: int) -> list[dict[str, Any]]:
    delta = {"stop_reason": "end_turn", "stop_sequence": None}
    metrics = {"inputTokenCount": plan.input_tokens, "outputTokenCount": words}
    usage = {"usage": {"output_tokens": words}} if plan.tells_usage else {}
    return [
        {"type": "content_block_stop", "index": 1},
        {"type": "message_delta", "delta": delta, **usage},
        {"type": "message_stop", "amazon-bedrock-invocationMetrics": metrics},
    ]


def _delta(delta: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 1, "delta": delta}


def _answer(call: Call, status: int, name: str, message: str) -> web.Response:
    call.end("refused")
    return web.json_response(
        {"message": message},
        status=status,
        headers={"x-amzn-errortype": f"{name}:http://internal.amazon.com/coral/"},
    )


async def _refusal(request: web.Request) -> tuple[int, str, str] | None:
    """Why AWS would not take this request's credentials."""
    authorization = request.headers.get("Authorization", "")
    if authorization == f"Bearer {API_KEY}":
        return None
    signed = _AUTHORIZATION.fullmatch(authorization)
    if signed is None:
        return 403, "MissingAuthenticationTokenException", "Missing a token."
    if signed[1] != ACCESS_KEY:
        return 403, "UnrecognizedClientException", "The security token is invalid."
    if signed[5] != _signature(request, await request.read(), *signed.group(3, 4)):
        return 403, "InvalidSignatureException", "The signature does not match."
    return None


def _signature(request: web.Request, body: bytes, region: str, names: str) -> str:
    """The signature that this request, as it came over the wire, should have."""
    headers = {name: request.headers[name] for name in names.split(";")}
    url = f"http://{request.headers['Host']}{request.raw_path}"
    copy = AWSRequest("POST", url, headers=headers, data=body)
    copy.context["timestamp"] = headers["x-amz-date"]
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), "bedrock", region)
    canonical = signer.canonical_request(copy)
    return str(signer.signature(signer.string_to_sign(copy, canonical), copy))


def _invalid(model: str, body: Mapping[str, Any]) -> tuple[int, str, str] | None:
    """What AWS says of a body that Claude does not take."""
    message = _mistake(model, body)
    return (400, "ValidationException", message) if message else None


def _mistake(model: str, body: Mapping[str, Any]) -> str:
    messages = body.get("messages") or []
    texts = [
        block["text"]
        for message in messages
        for block in message["content"]
        if block["type"] == "text"
    ]
    last = text_of(messages[-1]["content"]) if messages else ""
    prefill = bool(messages) and messages[-1]["role"] == "assistant"
    mistakes = {
        "The provided model identifier is invalid.": not _KNOWN_MODEL.match(model),
        "anthropic_version: Field required": (
            body.get("anthropic_version") != "bedrock-2023-05-31"
        ),
        "max_tokens: Field required": not isinstance(body.get("max_tokens"), int),
        "messages: at least one message is required": not messages,
        'messages: roles must alternate between "user" and "assistant"': (
            not alternating([m["role"] for m in messages])
        ),
        "messages: text content blocks must be non-empty": (
            not all(text.strip() for text in texts)
        ),
        "messages: final assistant content cannot end with trailing whitespace": (
            prefill and last != last.rstrip()
        ),
        "This model does not support assistant message prefill. The conversation must "
        "end with a user message.": prefill and not _TAKES_PREFILL.search(model),
    }
    return next((text for text, wrong in mistakes.items() if wrong), "")


if __name__ == "__main__":
    main(FakeBedrock)
