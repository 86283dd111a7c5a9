"""`phs-pipeline phantom`: cohorts with known healthy truth to try everything on."""

from pathlib import Path
from typing import Any

import click

from pipeline.cli.say import complain, progress, say

SUBJECTS = 12
VARIANTS = ("48-simple", "48-hard", "128", "plain")
# Options that only one kind has.
OF_KIND = {
    "planted": ("healthy", "shapes", "copies", "split", "modality", "layout", "mass_effect"),
    "cluttered-mnist": ("digits", "variant"),
    "cross-modal": ("contrast",),
    "sequences": (),
}


@click.command()
@click.option(
    "-o",
    "--output",
    required=True,
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="New folder for the cohort, or one to which subjects are added.",
)
@click.option(
    "--kind",
    default="brain",
    show_default=True,
    type=click.Choice(["brain", *OF_KIND]),
    help="Brains drawn from nothing, lesions planted in real scans, digits among pieces of others, brains of known "
    "age in three contrasts, or brains with two kinds of lesion in four sequences.",
)
@click.option(
    "--subjects",
    type=click.IntRange(min=1),
    help=f"Number of subjects, or of digits; cross-modal: in each contrast.  [default: {SUBJECTS}; planted: every "
    "scan; cluttered-mnist: every digit]",
)
@click.option(
    "--seed",
    default=0,
    show_default=True,
    type=click.IntRange(min=0),
    help="Another seed gives other brains and lesions; the same seed gives the same files.",
)
@click.option(
    "--healthy",
    metavar="COHORT",
    type=click.Path(path_type=Path),
    help="Planted: whose tissue, scans as `preprocess` takes them or a cohort that it made.",
)
@click.option(
    "--shapes",
    metavar="COHORT",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Planted: whose lesions' shapes, as --healthy or a folder of masks; may be given several times.",
)
@click.option("--copies", type=click.IntRange(1, 99), help="Planted: planted scans of each scan.  [default: 1]")
@click.option(
    "--split", type=click.Choice(["training", "validation", "test"]), help="Planted: in patients of this split alone."
)
@click.option("--modality", help="Planted: which scan of each subject, in the layout's own words.")
@click.option("--layout", help="Planted: how --healthy lies on disk; found out if not given.")
@click.option("--mass-effect", is_flag=True, help="Planted: lesions push the tissue around them aside.")
@click.option(
    "--digits",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Cluttered MNIST: an .npz file with images (N, 28, 28) and labels.  [default: scikit-learn's 1,797, enlarged]",
)
@click.option(
    "--variant",
    type=click.Choice(VARIANTS),
    help=f"Cluttered MNIST: pixels, and how much clutter: 8, 24, 80 or no pieces.  [default: {VARIANTS[0]}]",
)
@click.option(
    "--contrast",
    type=click.Choice(["FLAIR", "T1w", "T2w"]),
    help="Cross-modal: the one in which the brains of all three datasets are drawn, as perfect translation would.",
)
def phantom(output: Path, kind: str, subjects: int | None, seed: int, **of_kind: Any) -> None:
    """Write a cohort of scans with lesions and known healthy truth, as a BIDS dataset.

    Lesion masks lie under derivatives/manual, the same scans without lesions under derivatives/truth. The synthetic
    brains are skull-stripped, in FLAIR contrast, and hold no person's data.

    Planted lesions have the shapes of real ones, from punctate to a third of a hemisphere, and look bright, dark,
    rimmed, cystic or heterogeneous. They lie in brain tissue away from a patient's own disease, whose masks are under
    derivatives/ignore. Patients keep their splits, and shapes stay in theirs; scans of a raw cohort are split as
    `preprocess` does by default.

    Cluttered digits (GenSeg's task) are slices of volumes, one digit each: half show it among pieces of other digits,
    half show pieces alone. The masks are the digits'.

    The cross-modal brains (DUIIT's task) are other people in each contrast, a dataset each: FLAIR, T1w and T2w.
    Ventricles and sulci widen with the age that participants.tsv tells.

    With --kind sequences each brain is drawn in FLAIR, T1w, T2w and PDw, and has lesions that are bright or dark in
    FLAIR, as participants.tsv tells.
    """
    for other, names in OF_KIND.items():
        given = [name for name in names if other != kind and of_kind[name]]
        if given:
            raise click.UsageError(f"--{given[0].replace('_', '-')} is for --kind {other}; give both or none")
    of_this = {name: of_kind[name] for name in OF_KIND.get(kind, ())}
    if kind == "brain":
        from pipeline.phantoms.cohort import write_phantom_cohort

        labels = write_phantom_cohort(output, subjects or SUBJECTS, seed)
        say(f"{output}: {labels[0]} to {labels[-1]}, synthetic scans with lesion masks and healthy truth")
        return
    if kind == "cross-modal":
        from pipeline.phantoms.cross_modal import write_cross_modal_cohort

        told = progress("phantom {} of {}")
        made = write_cross_modal_cohort(output, subjects or SUBJECTS, seed, told, of_this["contrast"])
        say(f"{output}: {', '.join(f'{len(labels)} in {modality}' for modality, labels in made.items())}, of known age")
        return
    if kind == "sequences":
        from pipeline.phantoms.sequences import write_sequences_cohort

        labels = write_sequences_cohort(output, subjects or SUBJECTS, seed, progress("phantom {} of {}"))
        say(f"{output}: {labels[0]} to {labels[-1]} in four sequences, with bright or dark lesions")
        return
    if kind == "cluttered-mnist":
        _cluttered(output, subjects, seed, of_this)
        return
    if not (of_this["healthy"] and of_this["shapes"]):
        raise click.UsageError("--kind planted needs --healthy COHORT and --shapes COHORT")
    _planted(output, subjects, seed, of_this)


def _cluttered(output: Path, count: int | None, seed: int, given: dict[str, Any]) -> None:
    from pipeline.phantoms.cluttered import read_digits, scikit_digits
    from pipeline.phantoms.cluttered_cohort import write_cluttered_cohort

    digits = read_digits(given["digits"]) if given["digits"] else scikit_digits()
    variant = given["variant"] or VARIANTS[0]
    labels = write_cluttered_cohort(output, digits, variant, seed, count, progress("cluttered {} of {} volumes"))
    say(f"{output}: {len(labels)} volumes of cluttered digits ({variant}), and their masks")


def _planted(output: Path, subjects: int | None, seed: int, given: dict[str, Any]) -> None:
    from pipeline.errors import ScanError
    from pipeline.phantoms.planted_cohort import Settings, write_planted_cohort

    healthy, shapes = given.pop("healthy"), given.pop("shapes")
    settings = Settings(seed=seed, subjects=subjects, **{**given, "copies": given["copies"] or 1})
    told = progress("planted lesions in {} of {} scans")
    labels, problems = write_planted_cohort(output, healthy, shapes, settings, told)
    say(f"{output}: {len(labels)} scans with planted lesions, masks and healthy truth")
    for problem in problems:
        complain(f"skipped {problem.subject}: {problem.reason}")
    if problems:
        raise ScanError(f"{healthy}: {len(problems)} scan(s) could not be used, for the reasons above")
