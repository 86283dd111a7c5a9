"""`phs-pipeline rating`: a blinded reader study."""

from pathlib import Path

import click

from pipeline.cli.say import say


@click.group()
def rating() -> None:
    """Let people rate healthiness and identity, blinded to the method (GVS, Table II)."""


@rating.command()
@click.argument("reports", metavar="REPORT...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="STUDY",
    type=click.Path(path_type=Path),
    help="New folder for the raters' page and its key.",
)
@click.option(
    "--cases", default=100, show_default=True, type=click.IntRange(min=1), help="Slices to draw, evenly over patients."
)
@click.option(
    "--repeats",
    default=10,
    show_default=True,
    type=click.IntRange(min=0),
    help="Cases shown twice, to learn how far raters agree with themselves.",
)
@click.option("--seed", default=0, show_default=True, type=click.IntRange(min=0), help="Another seed, other cases.")
def draw(reports: tuple[Path, ...], output: Path, cases: int, repeats: int, seed: int) -> None:
    """Draw cases from evaluations of several methods on one cohort and write a page for raters.

    STUDY/rating.html is one file that opens in any browser and needs no network: send it to the raters. STUDY/key.json
    tells which image is whose: keep it to yourself, `rating report` needs it.
    """
    from pipeline.rating import draw_study

    key = draw_study(reports, output, cases, repeats, seed)
    repeated = sum(case["repeat_of"] is not None for case in key["cases"])
    different = len(key["cases"]) - repeated
    patients = len({case["patient"] for case in key["cases"]})
    if different < cases:
        say(f"only {different} of {cases} cases are there, all of them are used")
    if repeated < repeats:
        say(f"{repeated} instead of {repeats} cases come twice, a third of all at most")
    say(f"study {key['study']}: methods {len(key['methods'])}, patients {patients}, cases {different}, "
        f"of them shown twice {repeated}")  # fmt: skip
    say(f"for the raters: {output / 'rating.html'}")
    say(f"for nobody but you: {output / 'key.json'}")


@rating.command()
@click.argument("study", metavar="STUDY", type=click.Path(path_type=Path))
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path)
)
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="TABLE",
    type=click.Path(path_type=Path),
    help="Folder for the tables.",
)
@click.option("--overwrite", is_flag=True, help="Write into a folder that is not empty.")
def report(study: Path, files: tuple[Path, ...], output: Path, overwrite: bool) -> None:
    """Unblind the raters' files (one FILE for each rater) and write how the methods did and how far raters agree."""
    from pipeline.rating import report_study

    summary = report_study(study, files, output, overwrite)
    say(f"{'':20} healthiness   subject identity   (raters: {len(summary['raters'])})")
    for method, figures in summary["methods"].items():
        means = ["–" if of["mean"] is None else f"{of['mean']:.3f}" for of in figures.values()]
        say(f"{method:20} {means[0]:>11} {means[1]:>18}")
    for rater, of in summary["raters"].items():
        if of["missing"]:
            say(f"{rater}: {of['missing']} scores are missing")
    say(f"table: {output / 'table.md'}")
