"""`phs-pipeline verify`: is a file one of ours, unchanged, and from what."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import json_option
from pipeline.cli.say import complain, say, say_json

if TYPE_CHECKING:
    from pipeline.inference.verify import Verdict


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
@json_option
def verify(
    files: tuple[Path, ...],
    source: Path | None,
    series: str | None,
    key: Path | None,
    signers: Path | None,
    as_json: bool,
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
    from pipeline.inference.verify import Register, source_hashes

    _refuse_absent([*files, *filter(None, (source, key, signers))], files if key or signers else ())
    register = Register(source_hashes(source, series) if source else None)
    told: list[dict[str, Any]] = []
    looked_at = unsound = 0
    for path in _results(files):
        verdict = register.verify(path)
        looked_at += 1
        unsound += not verdict.is_sound
        if as_json:
            told.append(_told(path, verdict))
            continue
        head, *account = verdict.lines()
        say(f"{path}: {head}", always=not verdict.is_sound)
        for line in account:
            say(f"  {line}")
    signatures = _check(files, signers, as_json) if signers else {}
    if as_json:
        say_json({"files": told, "signed": signatures})
    differences = sum(len(signed["differences"]) for signed in signatures.values())
    if differences:
        raise ScanError(f"{differences} files are not as they were signed; see above")
    if unsound:
        raise ScanError(f"{unsound} of {looked_at} are not as they were written, or not from that scan; see above")
    if key:
        for folder in files:
            signed = sign(folder, key)
            if not as_json:
                say(f"{folder}: signed {signed} files; give your public key to those who check")


def _results(files: Sequence[Path]) -> Iterator[Path]:
    """What is verified, one after the other: of a folder of results its sidecars, each of which names files."""
    from pipeline.inference.verify import sidecars_below

    for path in files:
        sidecars = sidecars_below(path) if path.is_dir() else iter(())
        first = next(sidecars, path)
        yield first
        yield from sidecars


def _refuse_absent(paths: Sequence[Path], folders: Sequence[Path]) -> None:
    from pipeline.errors import UsageError

    for path in paths:
        if not path.exists():
            raise UsageError(f"{path}: no such file; check the path")
    for path in folders:
        if not path.is_dir():
            raise UsageError(f"{path}: is no folder, expected a folder of results, which is signed as a whole")


def _told(path: Path, verdict: "Verdict") -> dict[str, Any]:
    """A verdict as a program reads it."""
    _, *account = verdict.lines()
    return {
        "file": str(path),
        "sound": verdict.is_sound,
        "standing": verdict.standing.name.lower(),
        "meaning": verdict.standing.value,
        "detail": verdict.detail,
        "same_source": verdict.same_source,
        "account": account,
    }


def _check(folders: Sequence[Path], signers: Path, as_json: bool) -> dict[str, dict[str, Any]]:
    """By folder, who signed it and which of its files are not as they were then; said, unless it is for a program."""
    from pipeline.inference.signed import check

    found = {}
    for folder in folders:
        signed = check(folder, signers)
        found[str(folder)] = {
            "signer": signed.signer,
            "files": signed.files,
            "differences": [str(difference) for difference in signed.differences],
        }
        if not as_json:
            say(f"{folder}: signed by {signed.signer}, {signed.files} files")
            for difference in signed.differences:
                complain(f"{folder}/{difference}")
    return found
