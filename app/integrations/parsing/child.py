"""The child process in which a file is looked into: see `process`.

Called with the file, its type, a folder to write into, and the limits of seconds and
bytes. What it finds is JSON on its standard output: the fields of `Parsed`, or a
`reason` for which the file is refused.
"""

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from app.integrations.parsing.base import (
    PDF,
    TEXT_NAME,
    ZIP,
    Parsed,
    UnreadableFileError,
)

_MOST_WRITTEN = 64 * 2**20
_MOST_OPEN = 64
_NEW_USER, _NEW_NETWORK = 0x10000000, 0x40000000
"""Of Linux's unshare(2), which Python knows from 3.12 on."""


def limit(seconds: int, memory: int) -> None:
    """Of CPU time, address space, files' size and number; no core, no children."""
    if sys.platform == "win32":
        return  # it knows no such limits: the parent's clock is left
    import resource  # noqa: PLC0415 - not there on Windows

    for what, most in (
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_FSIZE, _MOST_WRITTEN),
        (resource.RLIMIT_NOFILE, _MOST_OPEN),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (most, most))


def leave_network() -> None:
    """Into a network of its own, with nobody in it; some kernels refuse that.

    Who is not root needs to be it, in a world of their own, to go there. Root stays
    who it is: with less it might not read its own installation.
    """
    if sys.platform != "linux":
        return
    import ctypes  # noqa: PLC0415 - only where it is of use

    is_root = os.geteuid() == 0
    flags = _NEW_NETWORK if is_root else _NEW_NETWORK | _NEW_USER
    ctypes.CDLL(None).unshare(flags)


def parse(path: Path, mime: str, folder: Path) -> Parsed:
    """Each parser is loaded where it is needed: most of them are large."""
    if mime.startswith("image/") and mime != "image/svg+xml":
        from app.integrations.parsing import images  # noqa: PLC0415 - see above

        return images.parse(path, mime, folder)
    if mime == PDF:
        from app.integrations.parsing import pdf  # noqa: PLC0415 - see above

        return pdf.parse(path, folder)
    if mime == ZIP:
        from app.integrations.parsing import office  # noqa: PLC0415 - see above

        return office.parse(path)
    from app.integrations.parsing import plain  # noqa: PLC0415 - see above

    return plain.parse(path, mime)


def main(path: str, mime: str, folder: str, seconds: str, memory: str) -> None:
    leave_network()
    limit(int(seconds), int(memory))
    try:
        parsed = parse(Path(path), mime, Path(folder))
    except UnreadableFileError as error:
        json.dump({"reason": error.detail}, sys.stdout)
        return
    except MemoryError:
        json.dump({"reason": "takes too much memory to be read"}, sys.stdout)
        return
    if parsed.text is not None:
        # Half of a pair, which PDFs know and UTF-8 does not.
        encoded = parsed.text.encode("utf-8", "replace")
        (Path(folder) / TEXT_NAME).write_bytes(encoded)
    told = asdict(parsed)
    del told["text"], told["thumbnail"], told["scaled"]
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main(*sys.argv[1:])
