from pathlib import Path
from typing import Literal

from pydantic import Field

from app.core.config.base import Group


class LogSettings(Group):
    enabled: bool = Field(
        True, alias="ENABLE_LOGGING", description="Write a line for every request."
    )
    timing: bool = Field(
        True,
        alias="ENABLE_TIMING",
        description="Send a Server-Timing header with every answer.",
    )
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", alias="LOG_LEVEL", description="DEBUG, INFO, WARNING or ERROR."
    )
    format: Literal["json", "console"] = Field(
        "json", alias="LOG_FORMAT", description="json or console."
    )
    file: Path | None = Field(
        None, alias="LOG_FILE", description="Write the log there too."
    )

    shared_metrics: str = Field(
        "",
        alias="PROMETHEUS_MULTIPROC_DIR",
        description="Folder in which several processes count together; "
        "`serve --workers` sets it.",
    )
