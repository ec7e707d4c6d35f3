"""How long a start takes, and what an idle server holds.

    python benchmarks/startup.py [--runs 5] [--json]

It clones this repository into an empty folder, with an empty home, and starts it there
by `./start.sh`, first with nothing installed and then again and again. Each figure is
printed beside the gate that it has to keep; the exit status is 1 where one is missed.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
GATES = {
    "first start, s": 90.0,
    "warm start, s (median)": 2.0,
    "idle memory, MiB": 150.0,
    "installed base, MiB": 350.0,
}
NEEDED = ("PATH", "LANG", "TERM", "TMPDIR")
PATIENCE = 300  # seconds until a start counts as failed


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def environment(home: Path, port: int) -> dict[str, str]:
    """An empty home; of this machine's settings only what its tools need."""
    kept = {k: v for k, v in os.environ.items() if k in NEEDED or k.startswith("PIP_")}
    return kept | {"HOME": str(home), "PORT": str(port)}


def start(clone: Path, home: Path) -> tuple[float, float]:
    """Seconds until the first healthy answer, and MiB of memory a moment later."""
    port = free_port()
    begun = time.monotonic()
    server = subprocess.Popen(
        ["./start.sh"],
        cwd=clone,
        env=environment(home, port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        wait_until_ready(server, port)
        seconds = time.monotonic() - begun
        time.sleep(1.5)  # let the scheduled jobs of the start run
        return seconds, resident_mib(server.pid)
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
        if server.stderr:
            server.stderr.close()


def wait_until_ready(server: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if server.poll() is not None:
            said = server.stderr.read().decode() if server.stderr else ""
            sys.exit(f"the server ended with {server.returncode}: {said}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready"):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.02)
    sys.exit(f"the server did not answer within {PATIENCE} s")


def resident_mib(pid: int) -> float:
    """Resident memory of the process; `start.sh` becomes the server by exec."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def installed_mib(clone: Path) -> float:
    """All of the virtual environment's packages, bytecode included."""
    total = 0
    for path in (clone / ".venv").rglob("*"):
        if path.is_file() and not path.is_symlink():
            total += path.stat().st_size
    return total / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="workroom-startup-"))
    try:
        clone, home = folder / "clone", folder / "home"
        home.mkdir()
        subprocess.run(["git", "clone", "-q", REPOSITORY, clone], check=True)
        first, _ = start(clone, home)
        warm = [start(clone, home) for _ in range(options.runs)]
        size = installed_mib(clone)
    finally:
        shutil.rmtree(folder)
    figures = {
        "first start, s": first,
        "warm start, s (median)": statistics.median(s for s, _ in warm),
        "idle memory, MiB": statistics.median(m for _, m in warm),
        "installed base, MiB": size,
    }
    if options.json:
        print(json.dumps(figures))
    else:
        for name, value in figures.items():
            print(f"{name:28} {value:8.2f}   gate {GATES[name]:6.1f}")
    sys.exit(any(figures[name] > gate for name, gate in GATES.items()))


if __name__ == "__main__":
    main()
