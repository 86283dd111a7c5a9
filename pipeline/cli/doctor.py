"""`phs-pipeline doctor`: checks of this machine, each with the command that mends what it found."""

from dataclasses import asdict

import click

from pipeline.cli.options import json_option
from pipeline.cli.say import say, say_json


@click.command()
@json_option
@click.pass_context
def doctor(context: click.Context, /, as_json: bool) -> None:
    """Check devices, memory, disk, permissions, weights and programs, one line each.

    A problem is told with the command that mends it. Optional programs that are missing are none. Exit code 0 without a
    problem, else 1.
    """
    from pipeline.doctor import examine

    checks = []
    for check in examine():
        checks.append(check)
        if not as_json:
            say(str(check), always=check.status != "ok")
    problems = sum(check.status == "problem" for check in checks)
    if as_json:
        say_json({"problems": problems, "checks": [asdict(check) for check in checks]})
    if problems:
        context.exit(1)
    if not as_json:
        say("no problem found")
