"""`phs-pipeline doctor`: checks of this machine, each with the command that mends what it found."""

import click

from pipeline.cli.say import say


@click.command()
@click.pass_context
def doctor(context: click.Context) -> None:
    """Check devices, memory, disk, permissions, weights and programs, one line each.

    A problem is told with the command that mends it. Optional programs that are missing are none. Exit code 0 without a
    problem, else 1.
    """
    from pipeline.doctor import examine

    problems = 0
    for check in examine():
        problems += check.status == "problem"
        say(str(check), always=check.status != "ok")
    if problems:
        context.exit(1)
    say("no problem found")
