"""A fake of Bedrock's two ways to Claude, on the real wire; it embeds and reranks, too.

InvokeModel, InvokeModelWithResponseStream and CountTokens at the root, and Mantle's
Messages API at `mantle_url`. All also stand below the name of a region, which a
signature must then name.
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

from tests.fakes.faults import Fault, FaultPlan
from tests.fakes.messages import (
    counted_script,
    end_events,
    miscounted,
    mistake,
    reply,
    script,
    start_events,
    text_event,
    whole_script,
)
from tests.fakes.model_server import (
    Call,
    FakeServer,
    Script,
    main,
    ranked,
    vector_of,
    whole,
)

REGION = "us-east-1"
ACCESS_KEY = "AKIDEXAMPLE"
SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
API_KEY = "bedrock-api-key-for-tests"

_AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/]+)/(\d{8})/([^/]+)/([a-z-]+)/aws4_request, "
    r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})"
)
_KNOWN_MODEL = re.compile(r"^(arn:aws:bedrock:.+|([a-z-]+\.)?anthropic\.claude-.+)$")
_PLAIN_MODEL = re.compile(r"^anthropic\.claude-[a-z0-9-]+$")
_COUNTED_MODEL = re.compile(r"^anthropic\.claude-(x-1|.+-v\d+(:0)?)$")
_EMBEDDER = re.compile(
    r"^(amazon\.titan-embed-text-v2:0|cohere\.embed-(english|multilingual)-v3"
    r"|([a-z]+\.)?cohere\.embed-v4:0)$"
)

TAKEN_BETAS = {
    "context-management-2025-06-27",
    "effort-2025-11-24",
    "interleaved-thinking-2025-05-14",
}
"""Any other is refused, without a word which that is."""

_RERANKER = re.compile(r"^(amazon\.rerank-v1:0|cohere\.rerank-v3-5:0)$")


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
        path = "/model/{model}/{action:invoke(-with-response-stream)?}"
        self.app.router.add_post(path, self._invoke)
        self.app.router.add_post("/{region}" + path, self._invoke)
        path = "/model/{model}/count-tokens"
        self.app.router.add_post(path, self._count)
        self.app.router.add_post("/{region}" + path, self._count)
        mantle = "/anthropic/v1/messages"
        self.app.router.add_post(mantle, self._messages)
        self.app.router.add_post("/{region}" + mantle, self._messages)
        path = mantle + "/count_tokens"
        self.app.router.add_post(path, self._count_by_mantle)
        self.app.router.add_post("/{region}" + path, self._count_by_mantle)

    @property
    def mantle_url(self) -> str:
        return f"{self.url}/anthropic"

    async def _invoke(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        model = unquote(request.match_info["model"])
        embeds = _EMBEDDER.match(model) and request.match_info["action"] == "invoke"
        reranks = _RERANKER.match(model) and request.match_info["action"] == "invoke"
        wrong = _invalid(model, body)
        if embeds or reranks:
            wrong = _unfit(model, body)
        refusal = await _refusal(request, "bedrock") or wrong
        if refusal := _refused(fault, refusal):
            return self._answer(call, *refusal)
        if embeds:
            answer = _embedded(self.plan, model, body)
        elif reranks:
            answer = _reranked(self.plan, body)
        elif request.match_info["action"] == "invoke":
            answer = whole_script(self.plan, model, body)
        else:
            answer = self._script(model, body)
        return await self.play(request, call, fault, answer)

    async def _count(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        model = unquote(request.match_info["model"])
        sent = json.loads(base64.b64decode(body["input"]["invokeModel"]["body"]))
        if _COUNTED_MODEL.match(model):
            wrong = _invalid(model, sent)
        else:
            told = "The provided model doesn't support counting tokens."
            wrong = (400, "ValidationException", told)
        refusal = await _refusal(request, "bedrock") or wrong
        if refusal := _refused(fault, refusal):
            return self._answer(call, *refusal)
        counted = counted_script(self.plan, "inputTokens")
        return await self.play(request, call, fault, counted)

    async def _count_by_mantle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        model = str(body.get("model", ""))
        told = miscounted(model, body)
        if not _PLAIN_MODEL.match(model):
            told = "The model does not exist."
        wrong = (400, "ValidationException", told) if told else None
        refusal = await _refusal(request, "bedrock-mantle") or wrong
        if refusal := _refused(fault, refusal):
            return self._answer(call, *refusal)
        counted = counted_script(self.plan, "input_tokens")
        return await self.play(request, call, fault, counted)

    async def _messages(self, request: web.Request) -> web.StreamResponse:
        """Mantle: credentials are refused by AWS, the rest as Anthropic does it."""
        body = await request.json()
        call = self.record(request, body)
        fault = self.plan.next_fault()
        if refusal := await _refusal(request, "bedrock-mantle"):
            return self._answer(call, *refusal)
        wrong = _misdirected(body) or mistake(body["model"], body)
        error = (400, "invalid_request_error", wrong) if wrong else None
        if fault == "throttle_first":
            error = (429, "rate_limit_error", "Too many requests.")
        elif fault == "unavailable":
            error = (503, "overloaded_error", "Overloaded")
        if error is None:
            return await self.play(request, call, fault, script(self.plan, body))
        call.end("refused")
        status, type_, message = error
        message = self.plan.words_of_error or message
        told = {"type": "error", "error": {"type": type_, "message": message}}
        headers = self.plan.refusal_headers()
        return web.json_response(told, status=status, headers=headers)

    def _answer(self, call: Call, status: int, name: str, text: str) -> web.Response:
        call.end("refused")
        kind = f"{name}:http://internal.amazon.com/coral/"
        headers = {"x-amzn-errortype": kind, **self.plan.refusal_headers()}
        told = {"message": self.plan.words_of_error or text}
        return web.json_response(told, status=status, headers=headers)

    def _script(self, model: str, body: Mapping[str, Any]) -> Script:
        plan = self.plan
        words, stopped = reply(plan, body)
        texts = [chunk(text_event(plan, word)) for word in words]
        name = plan.exception or "throttlingException"
        told = plan.words_of_error or "Too many tokens, please wait."
        damaged = bytearray(texts[-1] if texts else b"\0")
        damaged[-1] ^= 1
        return Script(
            content_type="application/vnd.amazon.eventstream",
            start=[chunk(event) for event in start_events(plan, model)],
            chunks=texts,
            end=[chunk(event) for event in end_events(plan, len(words), stopped)],
            exception=exception(name, told),
            damaged=bytes(damaged),
        )


def _refused(
    fault: Fault, refusal: tuple[int, str, str] | None
) -> tuple[int, str, str] | None:
    if fault == "throttle_first":
        return 429, "ThrottlingException", "Too many requests, please wait."
    if fault == "unavailable":
        return 503, "ServiceUnavailableException", "Bedrock is unavailable."
    return refusal


def _embedded(plan: FaultPlan, model: str, body: Mapping[str, Any]) -> Script:
    """Titan tells tokens in its answer, Cohere leaves that to Bedrock's header."""
    broken = {"message": "Broken in the middle."}
    if "titan" in model:
        vector = vector_of(body["inputText"], body.get("dimensions", 1024))
        answer = {"embedding": vector, "embeddingsByType": {"float": vector}}
        counted = {"inputTextTokenCount": plan.input_tokens}
        return whole({**answer, **counted}, exception=broken)
    length = body.get("output_dimension", 1536 if "v4" in model else 1024)
    seen = [[body["input_type"], text] for text in body["texts"]]
    script = whole(
        {
            "id": "fake",
            "response_type": "embeddings_by_type",
            "embeddings": {"float": [vector_of(text, length) for text in seen]},
            "texts": body["texts"],
        },
        exception=broken,
    )
    if plan.tells_usage:
        told = {"X-Amzn-Bedrock-Input-Token-Count": str(plan.input_tokens)}
        script.headers = told
    return script


def _reranked(plan: FaultPlan, body: Mapping[str, Any]) -> Script:
    told = ranked(body["query"], body["documents"])[: body.get("top_n")]
    script = whole({"results": told}, exception={"message": "Broken in the middle."})
    if plan.tells_usage:
        counted = {"X-Amzn-Bedrock-Input-Token-Count": str(plan.input_tokens)}
        script.headers = counted
    return script


async def _refusal(request: web.Request, service: str) -> tuple[int, str, str] | None:
    """Why AWS would not take this request's credentials."""
    authorization = request.headers.get("Authorization", "")
    if authorization == f"Bearer {API_KEY}":
        return None
    signed = _AUTHORIZATION.fullmatch(authorization)
    if signed is None:
        return 403, "MissingAuthenticationTokenException", "Missing a token."
    if signed[1] != ACCESS_KEY:
        return 403, "UnrecognizedClientException", "The security token is invalid."
    region, named, headers, signature = signed.group(3, 4, 5, 6)
    place = (request.match_info.get("region", region), service)
    right = _signature(request, await request.read(), place, headers)
    if named != service or signature != right:
        return 403, "InvalidSignatureException", "The signature does not match."
    return None


def _signature(
    request: web.Request, body: bytes, place: tuple[str, str], names: str
) -> str:
    """The signature that this request, as it came over the wire, should have."""
    headers = {name: request.headers[name] for name in names.split(";")}
    url = f"http://{request.headers['Host']}{request.raw_path}"
    copy = AWSRequest("POST", url, headers=headers, data=body)
    copy.context["timestamp"] = headers["x-amz-date"]
    region, service = place
    signer = SigV4Auth(Credentials(ACCESS_KEY, SECRET_KEY), service, region)
    canonical = signer.canonical_request(copy)
    return str(signer.signature(signer.string_to_sign(copy, canonical), copy))


def _invalid(model: str, body: Mapping[str, Any]) -> tuple[int, str, str] | None:
    """What AWS says of a body that Claude does not take."""
    message = mistake(model, body)
    if set(body.get("anthropic_beta", ())) - TAKEN_BETAS:
        message = "The model returned the following errors: invalid beta flag"
    if not _KNOWN_MODEL.match(model):
        message = "The provided model identifier is invalid."
    if body.get("anthropic_version") != "bedrock-2023-05-31":
        message = "anthropic_version: Field required"
    return (400, "ValidationException", message) if message else None


def _unfit(model: str, body: Mapping[str, Any]) -> tuple[int, str, str] | None:
    """What AWS says of a body that it embeds or ranks nothing of."""
    if "rerank" in model:
        known = {"query", "documents"}
        fits = bool(body.get("query")) and 1 <= len(body.get("documents", ())) <= 1000
        if "cohere" in model:
            known |= {"top_n", "api_version"}
            fits = fits and body.get("api_version") == 2
    elif "titan" in model:
        known = {"inputText", "dimensions"}
        fits = isinstance(body.get("inputText"), str) and bool(body["inputText"])
        fits = fits and body.get("dimensions", 256) in {256, 512, 1024}
    else:
        known = {"texts", "input_type", "embedding_types", "truncate"}
        known |= {"output_dimension"} if "v4" in model else set()
        fits = 1 <= len(body.get("texts", ())) <= 96
        fits = fits and body.get("input_type") in {"search_document", "search_query"}
        fits = fits and body.get("embedding_types") == ["float"]
        fits = fits and body.get("output_dimension", 256) in {256, 512, 1024, 1536}
    if extra := body.keys() - known:
        told = f"#: extraneous key [{min(extra)}] is not permitted"
        return 400, "ValidationException", told
    return None if fits else (400, "ValidationException", "Malformed input request.")


def _misdirected(body: Mapping[str, Any]) -> str:
    """What is wrong with a body that would be right for another endpoint."""
    if not _PLAIN_MODEL.match(str(body.get("model", ""))):
        return "The model does not exist."
    return "anthropic_version" if "anthropic_version" in body else ""


if __name__ == "__main__":
    main(FakeBedrock)
