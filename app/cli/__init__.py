"""The command line, `python -m app`: every command, its arguments and its help.

What a command does lies in a module of its own, imported when it runs: `serve` is to
be up in two seconds, and must not wait for what another command needs.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer

from app.cli.terminal import say
from app.core.env_example import Occasion, fresh_keys, render

cli = typer.Typer(
    help="Workroom, a self-hosted AI workspace.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
keys = typer.Typer(help="Make keys, and replace them.", no_args_is_help=True)
config = typer.Typer(help="Show and explain settings.", no_args_is_help=True)
cli.add_typer(keys, name="keys")
cli.add_typer(config, name="config")

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main(arguments: Sequence[str] | None = None) -> None:
    cli(arguments, prog_name="python -m app")


@cli.command("serve")
def run_server(
    *,
    host: Annotated[str | None, typer.Option(help="Instead of HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Instead of PORT.")] = None,
    workers: Annotated[int, typer.Option(min=1, help="Server processes.")] = 1,
    reload: Annotated[
        bool, typer.Option("--reload", help="Start anew when the code changes.")
    ] = False,
) -> None:
    """Migrate the database, then serve until Ctrl+C or SIGTERM.

    A first start in development writes .env with fresh keys.
    """
    from app.cli.serve import run

    run(host=host, port=port, workers=workers, reload=reload)


@cli.command("migrate")
def run_migrations() -> None:
    """Bring the database's schema up to this version's."""
    from app.cli.preparing import migrate
    from app.cli.terminal import load_settings_or_exit

    migrate(load_settings_or_exit())
    say("the database is up to date")


@cli.command("create-admin")
def create_admin(
    *,
    email: Annotated[str, typer.Option(help="The admin's e-mail address.")],
    username: Annotated[str, typer.Option(help="The name to log in by.")],
    password: Annotated[
        str | None,
        typer.Option(help="Without one, a password is made and printed, once."),
    ] = None,
) -> None:
    """Make an admin who may do everything; later ones an admin makes."""
    from app.cli.admin import create

    create(email=email, username=username, password=password)


@cli.command("doctor")
def run_doctor(*, as_json: AsJson = False) -> None:
    """Check this installation; exits 1 when something is wrong."""
    from app.cli.doctor import examine

    checks = examine()
    if as_json:
        typer.echo(json.dumps([check.as_dict() for check in checks], indent=2))
    else:
        for check in checks:
            typer.echo(f"{check.state:8} {check.name}: {check.detail}")
    if any(check.state == "problem" for check in checks):
        raise typer.Exit(1)


@cli.command("openapi")
def print_openapi() -> None:
    """Print the description of the API, as openapi.json holds it."""
    from app.cli.openapi import document

    typer.echo(document(), nl=False)


@keys.command("generate")
def generate_keys() -> None:
    """Print fresh random keys, as lines for .env."""
    for name, value in fresh_keys().items():
        typer.echo(f"{name}={value}")


@keys.command("rotate")
def rotate_keys(*, as_json: AsJson = False) -> None:
    """Seal all encrypted columns with the first key of ENCRYPTION_KEY.

    Put the new key before the old one, restart every server, run this, then take the
    old key out. It may be stopped and run again; exits 1 where something is unreadable.
    """
    from app.cli.keys import rotate

    rotations = rotate()
    if as_json:
        typer.echo(json.dumps([asdict(r) for r in rotations], indent=2))
    else:
        for r in rotations:
            counts = f"{r.rows} sealed, {r.resealed} of them anew"
            typer.echo(f"{r.column}: {counts}, {r.unreadable} unreadable")
            for problem in r.first_unreadable:
                typer.echo(f"    {problem}")
    if any(r.unreadable for r in rotations):
        raise typer.Exit(1)


@config.command("explain")
def explain_config(*, as_json: AsJson = False) -> None:
    """Show every setting: its value, where that comes from, what it means."""
    from app.cli.explain import explain
    from app.cli.terminal import load_settings_or_exit

    rows = explain(load_settings_or_exit())
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        typer.echo(f"{row['name']}={row['value']}  ({row['source']})")
        typer.echo(f"    {row['meaning']}")


@config.command("example")
def example_config(
    environment: Annotated[
        Occasion | None, typer.Option(help="What the file is for.")
    ] = None,
) -> None:
    """Print an example of .env: every setting, its meaning and its default."""
    typer.echo(render(environment), nl=False)
