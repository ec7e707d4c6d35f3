"""What reading a stream from Bedrock costs: our reader beside Anthropic's SDK.

    pip install "anthropic[bedrock]"
    python -m benchmarks.reader [--rounds 5] [--streams 16] [--json]

Both read the same paced answers in this process: 64 pieces each, one for each 5 ms. The
CPU time is this process's own, for each piece. Both sign with AWS keys.
"""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable

import uvloop

from app.core.config import ModelSettings
from app.integrations.llm.base import ChatMessage, ChatRequest, TextDelta
from app.integrations.llm.bedrock import BedrockProvider
from app.integrations.llm.catalogue import Catalogue
from app.integrations.llm.http import Http
from benchmarks.harness import (
    IncompleteError,
    Measured,
    Report,
    Workplace,
    paired,
    parser,
)
from benchmarks.upstream import BEDROCK_MODEL, PIECES, TEXT

try:
    from anthropic import AsyncAnthropicBedrock
except ImportError:
    sys.exit('This one needs Anthropic\'s SDK: pip install "anthropic[bedrock]"')

PACE_MS = 5.0
TURNS = 4
QUESTION = "Say sixty-four words to the benchmark, please."
KEY, SECRET, REGION = "AKIAIOSFODNN7EXAMPLE", "secret", "us-east-1"

Reader = Callable[[], Awaitable[str]]


def ours(upstream: str) -> Reader:
    settings = ModelSettings.model_validate(
        {
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "BEDROCK_BASE_URL": upstream,
            "BEDROCK_MODELS": BEDROCK_MODEL,
        }
    )
    provider = BedrockProvider(settings, Catalogue.load(None), Http(settings))
    asked = ChatMessage("user", [{"type": "text", "text": QUESTION}])
    request = ChatRequest(BEDROCK_MODEL, [asked])

    async def read() -> str:
        events = provider.stream(request)
        return "".join([e.text async for e in events if type(e) is TextDelta])

    return read


def sdk(upstream: str) -> Reader:
    client = AsyncAnthropicBedrock(
        aws_region=REGION, aws_access_key=KEY, aws_secret_key=SECRET, base_url=upstream
    )

    async def read() -> str:
        stream = await client.messages.create(
            model=BEDROCK_MODEL,
            max_tokens=4096,
            messages=[{"role": "user", "content": QUESTION}],
            stream=True,
        )
        return "".join(
            [
                event.delta.text
                async for event in stream
                if event.type == "content_block_delta"
                and event.delta.type == "text_delta"
            ]
        )

    return read


def measure(loop: asyncio.AbstractEventLoop, read: Reader, streams: int) -> Measured:
    async def stream(number: int) -> None:
        await asyncio.sleep(number / streams * len(PIECES) * PACE_MS / 1000)
        for _ in range(TURNS):
            begun = time.perf_counter()
            if await read() != TEXT:
                raise IncompleteError
            measured.took.append(time.perf_counter() - begun)

    async def all_streams() -> None:
        await asyncio.gather(*map(stream, range(streams)))

    measured = Measured()
    cpu, begun = time.process_time(), time.perf_counter()
    loop.run_until_complete(all_streams())
    measured.seconds = time.perf_counter() - begun
    measured.cpu = time.process_time() - cpu
    return measured


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--streams", type=int, default=16)
    options = arguments.parse_args()
    report = Report(options)
    loop = uvloop.new_event_loop()
    asyncio.set_event_loop(loop)
    with Workplace() as place:
        upstream = place.upstream(PACE_MS)
        sides = [reader(upstream) for reader in (sdk, ours)]
        rounds = paired(
            options.rounds,
            *(lambda r=read: measure(loop, r, options.streams) for read in sides),
        )
        costs = [[m.cpu_each / len(PIECES) * 1e6 for m in pair] for pair in rounds]
        theirs, our_own = zip(*costs, strict=True)
        report.compare("Bedrock: CPU us/piece, SDK and ours", theirs, our_own)
    report.end()


if __name__ == "__main__":
    main()
