"""`phs-pipeline compare`: methods side by side, with significance."""

from pathlib import Path

import click

from pipeline.cli.say import say, say_lines


@click.command()
@click.argument("reports", metavar="REPORT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, metavar="TABLE", type=click.Path(path_type=Path), help="Folder for the table."
)
@click.option(
    "--baseline",
    "baselines",
    multiple=True,
    metavar="NAME",
    help="Row that others are tested against, the best one in each metric; may be repeated.  [default: the controls]",
)
@click.option(
    "--case",
    "cases",
    multiple=True,
    metavar="SUBJECT[:SLICE]",
    help="Slice to show; may be repeated.  [default: best, median and worst volume of the first report]",
)
@click.option(
    "--trainings", is_flag=True, help="Reports of one name are trainings of one method: one row, both deviations."
)
@click.option("--controls", is_flag=True, help="Show the controls' images too.")
@click.option("--no-panel", is_flag=True, help="Make no picture.")
@click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty.")
def compare(
    reports: tuple[Path, ...],
    output: Path,
    baselines: tuple[str, ...],
    cases: tuple[str, ...],
    trainings: bool,
    controls: bool,
    no_panel: bool,
    overwrite: bool,
) -> None:
    """Put reports of `phs-pipeline evaluate` into one table, with tests of significance and a picture.

    The reports must be of the same cohort, split and judge, each of a method of another name, or, with --trainings, of
    several trainings of a method. The controls are rows of the table too; a star marks a method that is significantly
    better than the best baseline.
    """
    from pipeline.comparison import compare as compare_reports
    from pipeline.comparison import read_report
    from pipeline.errors import UsageError
    from pipeline.files import require_empty
    from pipeline.reports.comparison_notes import no_star
    from pipeline.reports.comparison_panel import choose_cases, panel
    from pipeline.reports.comparison_table import markdown, write_comparison

    require_empty(output, overwrite)
    if no_panel and (cases or controls):
        raise UsageError("--no-panel: makes no picture for --case or --controls to show; leave out one or the other")
    read = [read_report(report) for report in reports]
    comparison = compare_reports(read, baselines, trainings)
    shown = not no_panel and read[0].summary["kind"] == "translator"
    picture = panel(read, choose_cases(read[0], cases), controls) if shown else None
    write_comparison(output, comparison, picture)
    say_lines(markdown(comparison))
    for note in no_star(comparison):
        say(note)
    say(f"table: {output / 'table.html'}")
