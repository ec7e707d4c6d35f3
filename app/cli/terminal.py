"""What commands say to people: one line each, ours marked by our name."""

from typing import NoReturn

import typer

from app.core.config import ConfigError, Settings, load_settings


def say(line: str) -> None:
    typer.echo(f"workroom: {line}")


def fail(message: str, *, code: int = 1) -> NoReturn:
    """End the command; each line of `message` names a problem and its mend."""
    for line in message.splitlines():
        typer.echo(f"workroom: {line}", err=True)
    raise typer.Exit(code)


def load_settings_or_exit() -> Settings:
    try:
        return load_settings()
    except ConfigError as error:
        fail(str(error), code=2)


def reason(error: Exception) -> str:
    """What a library says, in one line and without its own explanations."""
    words = str(getattr(error, "orig", None) or error).strip()
    return words.splitlines()[0] if words else type(error).__name__
