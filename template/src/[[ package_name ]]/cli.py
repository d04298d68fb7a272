"""Commands that run before the app can: registered in ``pyproject.toml`` as ``flask.commands``."""

import click

from . import secret


@click.command("secret-key")
def secret_key() -> None:
    """Print a fresh secret for FLASK_SECRET_KEY."""
    click.echo(secret.fresh_key())
