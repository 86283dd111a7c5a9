"""`phs-pipeline card`: the performance sections of a bundle's model card."""

from pathlib import Path

import click

from pipeline.cli.say import complain, say


@click.command()
@click.argument("bundle_name", metavar="BUNDLE")
@click.option(
    "--report",
    "reports",
    required=True,
    multiple=True,
    metavar="REPORT",
    type=click.Path(path_type=Path),
    help="Folder written by `phs-pipeline evaluate`, also with --healthy; may be repeated.",
)
@click.option(
    "--pictures",
    is_flag=True,
    help="Show the reports' cases. By it you say that the licence of the scans allows that they are published.",
)
@click.option("--check", is_flag=True, help="Write nothing; exit code 1 if the card is not what the reports give.")
def card(bundle_name: str, reports: tuple[Path, ...], pictures: bool, check: bool) -> None:
    """Write what evaluations measured into the card of BUNDLE, docs/README.md, between its two markers.

    The prose around the markers stays as it is. Reports of other weights than the bundle's are refused.
    """
    from pipeline.bundles import find_bundle
    from pipeline.files import write_text
    from pipeline.reports.card import card as written
    from pipeline.reports.card import card_path, copy_pictures

    bundle = find_bundle(bundle_name)
    path, text = card_path(bundle), written(bundle, reports, pictures)
    if check:
        if path.read_text(encoding="utf-8") != text:
            complain(f"{path}: is not what the reports give; run the command without --check")
            click.get_current_context().exit(1)
        say(f"{path}: is what the reports give")
        return
    if pictures:
        copy_pictures(bundle, reports)
    write_text(path, text)
    say(f"{path}: written")
