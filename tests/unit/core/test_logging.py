import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
import pytest
import structlog

from app.core.config import LogSettings
from app.core.logging import about, configure, redact


@pytest.fixture
def _root() -> Iterator[None]:
    """Put back what the tests' own logging is made of."""
    root = logging.getLogger()
    before = root.handlers[:], root.level
    root.handlers = []
    yield
    for handler in root.handlers:
        with suppress(OSError):  # on a full disk
            handler.close()
    root.handlers, root.level = before


def lines(text: str) -> list[dict[str, Any]]:
    """All of each but its time, which must be there."""
    found = [orjson.loads(line) for line in text.splitlines()]
    assert all(line.pop("timestamp").endswith("Z") for line in found)
    return found


@pytest.mark.usefixtures("_root")
def test_lines_of_ours_and_of_libraries_go_to_standard_error_and_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "logs" / "log"
    configure(LogSettings(LOG_FILE=file, LOG_LEVEL="INFO"))

    about.set({"request_id": "r"})
    structlog.get_logger().debug("too small")
    structlog.get_logger().warning("ours", count=1, password="x")
    structlog.get_logger("named").info("é")
    logging.getLogger("library").info("theirs %d", 2)
    about.set({})

    written = lines(capsys.readouterr().err)
    assert written == lines(file.read_text("utf-8"))
    told = [(w["event"], w["level"], w["logger"]) for w in written]
    assert told == [
        ("ours", "warning", __name__),
        ("é", "info", "named"),
        ("theirs 2", "info", "library"),
    ]
    assert all(w["request_id"] == "r" for w in written)
    assert written[0]["password"] == "[redacted]"


@pytest.mark.usefixtures("_root")
def test_a_full_disk_ends_no_request(capsys: pytest.CaptureFixture[str]) -> None:
    configure(LogSettings(LOG_FILE=Path("/dev/full")))

    structlog.get_logger().error("event")

    assert lines(capsys.readouterr().err)[0]["event"] == "event"


@pytest.mark.parametrize("path", ["/shared/t0ken", "/api/v1/shared/t0ken"])
def test_the_log_does_not_hold_links_by_which_everybody_may_read(path: str) -> None:
    """D2."""
    line = redact(None, "info", {"event": "request", "path": path})

    assert line["path"] == path.replace("t0ken", "[redacted]")


def test_fields_that_are_named_like_secrets_are_not_written() -> None:
    line = redact(None, "info", {"access_token": "x", "input_tokens": 3})

    assert line == {"access_token": "[redacted]", "input_tokens": 3}
