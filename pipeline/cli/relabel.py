"""`phs-pipeline relabel`: the lesion back in what was made of the filled scan."""

from pathlib import Path

import click

from pipeline.cli.say import complain, say

FILE = click.Path(path_type=Path)


@click.command()
@click.argument("parcellation", type=FILE)
@click.option("--mask", required=True, metavar="FILE", type=FILE, help="Lesion mask, such as the one that was filled.")
@click.option("-o", "--output", required=True, metavar="FILE", type=FILE, help=".nii.gz, .nii or .mgz to write.")
@click.option("--label", type=click.IntRange(min=1), help="Number of the lesion.  [default: the first unused one]")
@click.option(
    "--names", metavar="FILE", type=FILE, help="Names of regions: _dseg.tsv (index, name) or FreeSurferColorLUT.txt."
)
@click.option("--overwrite", is_flag=True, help="Replace the output.")
def relabel(
    parcellation: Path, mask: Path, output: Path, label: int | None, names: Path | None, overwrite: bool
) -> None:
    """Put a lesion as a label into a segmentation or parcellation that was made of the filled scan.

    PARCELLATION is NIfTI or .mgz. A mask on another grid of the same space, as beside FreeSurfer's results, is
    resampled by nearest neighbour, and told. Beside the output: a table of what each region lost to the lesion in ml
    (…_volumes.tsv), and a JSON sidecar.
    """
    from pipeline.inference.relabel import check_output, put_lesion, read_names, read_parcellation, write_relabelled

    check_output(output, [parcellation, mask, *([names] if names else [])], overwrite)
    known = read_names(names) if names else None
    before, lesion = read_parcellation(parcellation), read_parcellation(mask)
    made = put_lesion(before, lesion, label, known)
    table = write_relabelled(output, made, before, lesion, names)[1]
    for note in made.notes:
        complain(f"{output}: {note}")
    lost = made.table.iloc[:-1]
    touched = int((lost["lost_ml"] > 0).sum())
    inside_ml = float(lost["lost_ml"].sum())
    say(
        f"{output}: the lesion has the label {made.label}; {touched} of {len(lost)} regions lost {inside_ml:.3g} ml to "
        f"it, {made.outside_ml:.3g} ml of it lie in none; see {table}"
    )
