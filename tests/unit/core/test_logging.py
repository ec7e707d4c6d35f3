import io
import sys

import orjson
import pytest
import structlog

from app.core.config import LogSettings
from app.core.logging import configure, redact


@pytest.mark.parametrize("path", ["/shared/t0ken", "/api/v1/shared/t0ken"])
def test_the_log_does_not_hold_links_by_which_everybody_may_read(path: str) -> None:
    """D2."""
    line = redact(None, "info", {"event": "request", "path": path})

    assert line["path"] == path.replace("t0ken", "[redacted]")


def test_fields_that_are_named_like_secrets_are_not_written() -> None:
    line = redact(None, "info", {"access_token": "x", "input_tokens": 3})

    assert line == {"access_token": "[redacted]", "input_tokens": 3}


def test_a_log_that_cannot_be_written_ends_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gone = io.StringIO()
    monkeypatch.setattr(sys, "stderr", gone)
    configure(LogSettings.model_validate({"LOG_LEVEL": "INFO"}))
    log = structlog.get_logger("test")

    log.info("heard", secret="x")
    gone_text = gone.getvalue()
    gone.close()
    log.info("not heard")

    assert orjson.loads(gone_text)["secret"] == "[redacted]"
