"""`phs-pipeline verify`: is a file one of ours, unchanged, and from what."""

from collections.abc import Sequence
from pathlib import Path

import click

from pipeline.cli.say import complain, say


@click.command()
@click.argument("files", nargs=-1, required=True, metavar="FILE…", type=click.Path(path_type=Path))
@click.option("--source", metavar="SCAN", type=click.Path(path_type=Path), help="The scan they should be made from.")
@click.option("--series", metavar="NUMBER", help="Which DICOM series of --source, where it holds several.")
@click.option(
    "--sign", "key", metavar="KEY", type=click.Path(path_type=Path), help="Sign folders with this OpenSSH key."
)
@click.option(
    "--signed-by",
    "signers",
    metavar="KEY.pub",
    type=click.Path(path_type=Path),
    help="Whose signature they should bear: a public key, or a list of allowed signers.",
)
def verify(
    files: tuple[Path, ...], source: Path | None, series: str | None, key: Path | None, signers: Path | None
) -> None:
    """Tell whether each FILE is one of ours, unchanged, and what it was made from.

    A FILE is a NIfTI or DICOM file, a picture, a page, the folder of a DICOM series, or a folder of results. It is
    compared with the hash in the sidecar beside it; its source, if it lies beside it or is given, with the hash there.
    Exit code 0 if all is as recorded, else 1.

    This tells an accident: an edit, a mix-up. It tells no forgery: whoever can write a result can write a sidecar to
    go with it. For that, sign a folder whose files are all as recorded: --sign KEY writes signed.json, a list of all
    files with their hashes, and signed.json.sig, its signature by ssh-keygen. --signed-by KEY.pub tells whether the
    signature is of that key, and which files were changed, removed or added since.
    """
    from pipeline.errors import ScanError
    from pipeline.inference.signed import sign
    from pipeline.inference.verify import Register, sidecars_below, source_hashes

    _refuse_absent([*files, *filter(None, (source, key, signers))], files if key or signers else ())
    register = Register(source_hashes(source, series) if source else None)
    unsound = 0
    looked_at = [each for path in files for each in (path.is_dir() and sidecars_below(path)) or [path]]
    for path in looked_at:
        verdict = register.verify(path)
        unsound += not verdict.is_sound
        head, *account = verdict.lines()
        say(f"{path}: {head}", always=not verdict.is_sound)
        for line in account:
            say(f"  {line}")
    differences = sum(_check(folder, signers) for folder in files) if signers else 0
    if differences:
        raise ScanError(f"{differences} files are not as they were signed; see above")
    if unsound:
        raise ScanError(f"{unsound} of {len(looked_at)} are not as they were written, or not from that scan; see above")
    if key:
        for folder in files:
            say(f"{folder}: signed {sign(folder, key)} files; give your public key to those who check")


def _refuse_absent(paths: Sequence[Path], folders: Sequence[Path]) -> None:
    from pipeline.errors import UsageError

    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file; check the path")
    for path in folders:
        if not path.is_dir():
            raise UsageError(f"{path}: is no folder, expected a folder of results, which is signed as a whole")


def _check(folder: Path, signers: Path) -> int:
    """Say who signed a folder, and how many of its files are not as they were then."""
    from pipeline.inference.signed import check

    signed = check(folder, signers)
    say(f"{folder}: signed by {signed.signer}, {signed.files} files")
    for difference in signed.differences:
        complain(f"{folder}/{difference}")
    return len(signed.differences)
