"""`phs-pipeline verify`: is a file one of ours, unchanged, and from what."""

from pathlib import Path

import click

from pipeline.cli.say import say


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@click.option("--source", metavar="SCAN", type=click.Path(path_type=Path), help="The scan they should be made from.")
@click.option("--series", metavar="NUMBER", help="Which DICOM series of --source, where it holds several.")
def verify(files: tuple[Path, ...], source: Path | None, series: str | None) -> None:
    """Tell whether each FILE is one of ours, unchanged, and what it was made from.

    A FILE is a NIfTI or DICOM file, a picture, a page, the folder of a DICOM series, or a folder of results. It is
    compared with the hash in the sidecar beside it; its source, if it lies beside it or is given, with the hash there.
    Exit code 0 if all is as recorded, else 1.
    """
    from pipeline.errors import ScanError, UsageError
    from pipeline.inference.verify import Register, sidecars_below, source_hashes

    for path in (*files, *([source] if source else [])):
        if not path.exists():
            raise UsageError(f"{path}: no such file; check the path")
    register = Register(source_hashes(source, series) if source else None)
    unsound = 0
    looked_at = [each for path in files for each in (path.is_dir() and sidecars_below(path)) or [path]]
    for path in looked_at:
        verdict = register.verify(path)
        unsound += not verdict.is_sound
        head, *account = verdict.lines()
        (say if verdict.is_sound else click.echo)(f"{path}: {head}")
        for line in account:
            say(f"  {line}")
    if unsound:
        raise ScanError(f"{unsound} of {len(looked_at)} are not as they were written, or not from that scan; see above")
