import pytest

from app.core.logging import redact


@pytest.mark.parametrize("path", ["/shared/t0ken", "/api/v1/shared/t0ken"])
def test_the_log_does_not_hold_links_by_which_everybody_may_read(path: str) -> None:
    """D2."""
    line = redact(None, "info", {"event": "request", "path": path})

    assert line["path"] == path.replace("t0ken", "[redacted]")


def test_fields_that_are_named_like_secrets_are_not_written() -> None:
    line = redact(None, "info", {"access_token": "x", "input_tokens": 3})

    assert line == {"access_token": "[redacted]", "input_tokens": 3}
