"""Memory of the gateway under long load, one reader in ten leaving in mid-stream.

    python -m benchmarks.gateway_soak [--minutes 10] [--streams 32] [--json]

The slope counts after the first tenth of the time, by least squares over a measurement
each second. A message log row must be there for each call that reached the provider. A
client may have left before its request was read, or its key looked up: that is no call.
"""

import asyncio
import contextlib
import sqlite3
import time

from benchmarks.gateway import PATHS, body, new_key
from benchmarks.harness import Report, Server, Workplace, call, parser, request
from benchmarks.soak import answer_body
from benchmarks.turn import MODELS, PACE_MS, check_openai, settings

LEAVES = 10
LEAVES_AFTER = 0.1  # seconds
MOST_SLOPE = 1.0  # MiB a minute


class Soak:
    def __init__(self, server: Server, key: str) -> None:
        self._server = server
        self._sent = request(
            "POST",
            PATHS["openai"],
            token=key,
            body=body(MODELS["openai"], stream=True),
        )
        self.requests = 0
        self.memory: list[tuple[float, float]] = []
        """Minutes since the beginning, and MiB."""

    async def run(self, streams: int, seconds: float) -> None:
        self._began = time.monotonic()
        self._ends = self._began + seconds
        await asyncio.gather(self._watch(), *(self._stream() for _ in range(streams)))

    async def _watch(self) -> None:
        while (now := time.monotonic()) < self._ends:
            self.memory.append(((now - self._began) / 60, self._server.resident_mib()))
            await asyncio.sleep(1)

    async def _stream(self) -> None:
        while time.monotonic() < self._ends:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._server.port
            )
            for number in range(1, LEAVES + 1):
                writer.write(self._sent)
                self.requests += 1
                if number == LEAVES:
                    await asyncio.sleep(LEAVES_AFTER)
                else:
                    check_openai(await answer_body(reader))
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    def slope(self) -> float:
        """MiB a minute, after the first tenth of the time."""
        points = self.memory[len(self.memory) // 10 :]
        x, y = (sum(axis) / len(points) for axis in zip(*points, strict=True))
        rise = sum((a - x) * (b - y) for a, b in points)
        return float(rise / sum((a - x) ** 2 for a, _ in points))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--minutes", type=float, default=10)
    arguments.add_argument("--streams", type=int, default=32)
    options = arguments.parse_args()
    with Workplace() as place:
        url = place.database("sqlite")
        upstream = place.upstream(PACE_MS)
        server = place.workroom(DATABASE_URL=url, **settings(upstream))
        soak = Soak(server, new_key(server))
        asyncio.run(soak.run(options.streams, options.minutes * 60))
        time.sleep(3)  # until the last rows are written
        calls = call(f"{upstream}/calls")
        with contextlib.closing(sqlite3.connect(f"{place.folder}/bench.db")) as db:
            (rows,) = db.execute("SELECT count(*) FROM message_logs").fetchone()
    report = Report(options)
    report.tell("memory at first, MiB", soak.memory[0][1])
    report.tell("memory at the end, MiB", soak.memory[-1][1])
    report.tell("slope, MiB a minute", soak.slope(), at_most=MOST_SLOPE)
    report.tell("requests", soak.requests)
    report.tell("requests that made no call", soak.requests - calls)
    report.tell("calls without a log row", calls - rows, at_most=0)
    report.end()


if __name__ == "__main__":
    main()
