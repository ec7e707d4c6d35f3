"""The description of the API, as `openapi.json` holds it."""

import json
import tempfile
from pathlib import Path

from app.core.config import load_settings
from app.main import create_app


def document() -> str:
    """By the default settings, whatever those of this installation are."""
    with tempfile.TemporaryDirectory() as empty:
        settings = load_settings({"SECRET_KEY": "for no server"}, Path(empty))
    return json.dumps(create_app(settings).openapi(), indent=2) + "\n"
