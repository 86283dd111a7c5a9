"""What commands tell a user who did not ask for quiet."""

import click


def say(text: str) -> None:
    """Print a line of results, unless `phs-pipeline --quiet` was called; errors are always printed."""
    if not click.get_current_context().find_root().params.get("quiet"):
        click.echo(text)
