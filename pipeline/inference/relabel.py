"""The lesion back as a label in a parcellation that was made of a filled scan, and what each region lost to it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from pipeline import __version__
from pipeline.errors import ScanError, UsageError
from pipeline.files import sha256, small_text, table_cell, write_json, write_text
from pipeline.identity import NAME
from pipeline.inference.bids import BIDS_VERSION
from pipeline.preprocessing.labels import SOFT_THRESHOLD, empty
from pipeline.scans import Scan, check_labels, check_same_grid, is_nifti, on_grid_of, read_nifti, stem, write_nifti
from pipeline.scans.freesurfer import SUFFIXES, is_mgh, read_mgh, write_mgh

MARK = b"Parcellation with a lesion as label, by phs-pipeline relabel"
LESION = "Lesion"
# Of the mask's voxels, as many at least lie in the parcellation's field of view if both lie in one space.
IN_VIEW = 0.5
# The integers that NIfTI and FreeSurfer both know.
INTEGERS = (np.uint8, np.int16, np.int32)
MOST = int(np.iinfo(np.int32).max)
# FreeSurfer's FreeSurferColorLUT.txt: number, name, red, green, blue, transparency.
LUT_LINE = re.compile(r"\s*(-?\d+)\s+(\S+)(\s+\d+){3,4}\s*")
COLUMNS = {
    "index": {"Description": "Number of the label in the parcellation"},
    "name": {"Description": "Name of the region; n/a where none was given"},
    "before_ml": {"Description": "Volume in the parcellation of the filled scan", "Units": "mL"},
    "lost_ml": {"Description": "Volume of it that lies in the lesion", "Units": "mL"},
    "after_ml": {"Description": "Volume that is left", "Units": "mL"},
}


@dataclass(frozen=True)
class Relabelled:
    """A parcellation with the lesion in it.

    Attributes:
        labels: shape of the parcellation, an integer type.
        label: number of the lesion.
        table: a row for each region and, last, the lesion; columns as `COLUMNS`.
        outside_ml: of the lesion, in no region.
        notes: for the user.
    """

    labels: NDArray[np.generic]
    label: int
    table: pd.DataFrame
    outside_ml: float
    notes: list[str]


def read_parcellation(path: Path) -> Scan:
    """A parcellation or mask, NIfTI or FreeSurfer's.

    Raises:
        UsageError: if there is no such file.
        ScanError: if it cannot be read.
    """
    return read_mgh(path) if is_mgh(path) else read_nifti(path, constant_ok=True)


def put_lesion(
    parcellation: Scan, mask: Scan, label: int | None = None, names: Mapping[int, str] | None = None
) -> Relabelled:
    """Put a lesion into a parcellation.

    A mask on another grid of the same space is brought onto the parcellation's by nearest neighbour, as FreeSurfer's
    results need, which lie on 1 mm voxels of its own.

    Args:
        parcellation: whole numbers, 0 where no region is.
        mask: of the lesion; 0.5 and more is inside.
        label: number of the lesion; None takes the first that is unused in the parcellation and in `names`.
        names: of regions, by number.

    Raises:
        UsageError: if `label` is a region's.
        ScanError: if the parcellation holds no labels, the mask is none, is empty, or does not lie in its space.
    """
    labels = _whole_numbers(parcellation)
    lesion, notes = _lesion_on(parcellation, mask)
    names = names or {}
    numbers, before = np.unique(labels, return_counts=True)
    used = {int(number) for number in numbers} | set(names)
    chosen = max(0, *used) + 1 if label is None else label
    if label is not None and label in {0, *map(int, numbers)}:
        raise UsageError(
            f"--label {label}: is {names.get(label, 'a region')} in {parcellation.origin}, expected a number that is "
            f"unused; take {max(0, *used) + 1}, or leave it out"
        )
    if not 0 < chosen <= MOST:
        raise UsageError(f"--label {chosen}: expected a number from 1 to {MOST}; choose another")
    lost = np.bincount(np.searchsorted(numbers, labels[lesion]), minlength=len(numbers))
    voxel_ml = parcellation.voxel_ml
    rows = [
        (int(number), names.get(int(number)) or "n/a", there * voxel_ml, gone * voxel_ml, (there - gone) * voxel_ml)
        for number, there, gone in zip(numbers, before, lost, strict=True)
        if number != 0
    ]
    lesion_ml = int(lesion.sum()) * voxel_ml
    rows.append((chosen, names.get(chosen, LESION), 0.0, 0.0, lesion_ml))
    kind = next(kind for kind in INTEGERS if min(0, labels.min()) >= np.iinfo(kind).min and
                max(chosen, labels.max()) <= np.iinfo(kind).max)  # fmt: skip
    outside_ml = float(lost[numbers == 0].sum()) * voxel_ml
    if outside_ml == lesion_ml:
        notes.append("the lesion lies in no region of the parcellation; check that they are of one scan")
    return Relabelled(
        labels=np.where(lesion, chosen, labels).astype(kind),
        label=chosen,
        table=pd.DataFrame(rows, columns=list(COLUMNS)),
        outside_ml=outside_ml,
        notes=notes,
    )


def _whole_numbers(parcellation: Scan) -> NDArray[np.int64]:
    values = parcellation.stored.astype(np.float64) * parcellation.slope + parcellation.intercept
    labels = np.rint(values)
    if (labels != values).any() or np.abs(labels).max() > MOST:
        wrong = float(values[labels != values].flat[0]) if (labels != values).any() else float(np.abs(labels).max())
        raise ScanError(
            f"{parcellation.origin}: found the value {wrong:g}, expected whole numbers, one for each region; give the "
            "parcellation, neither a scan nor a map of probabilities"
        )
    if not labels.any():
        raise ScanError(f"{parcellation.origin}: holds no label but 0, expected regions; give another parcellation")
    return labels.astype(np.int64)


def _lesion_on(parcellation: Scan, mask: Scan) -> tuple[NDArray[np.bool_], list[str]]:
    """The lesion on the parcellation's grid, and how it came there."""
    check_labels(mask)
    drawn = mask.intensities() >= SOFT_THRESHOLD
    if not drawn.any():
        raise ScanError(f"{mask.origin}: the mask {empty(mask)}, expected a lesion; give another mask")
    turned = on_grid_of(parcellation, replace(mask, stored=drawn.astype(np.uint8), slope=1.0, intercept=0.0))
    try:
        check_same_grid(parcellation, turned, "mask")
    except ScanError as other_grid:
        return _resampled(parcellation, mask, drawn, other_grid)
    return turned.stored.astype(bool), []


def _resampled(
    parcellation: Scan, mask: Scan, drawn: NDArray[np.bool_], other_grid: ScanError
) -> tuple[NDArray[np.bool_], list[str]]:
    if any(scan.header["qform_code"] == 0 == scan.header["sform_code"] for scan in (parcellation, mask)):
        raise ScanError(f"{other_grid}, as the header of one does not say how it lies in space") from other_grid
    to_mask = np.linalg.inv(mask.affine) @ parcellation.affine
    seen = np.linalg.inv(to_mask) @ np.vstack([np.argwhere(drawn).T, np.ones(int(drawn.sum()))])
    upper = np.array(parcellation.shape)[:, None] - 0.5
    in_view = float(((seen[:3] >= -0.5) & (seen[:3] <= upper)).all(axis=0).mean())
    if in_view < IN_VIEW:
        raise ScanError(
            f"{mask.origin}: {in_view:.0%} of the mask lies in the field of view of {parcellation.origin.name}, "
            "expected all of it, in the same space; register the mask to the scan that the parcellation was made of"
        ) from other_grid
    lesion: NDArray[np.bool_] = (
        ndimage.affine_transform(
            drawn.astype(np.uint8), to_mask[:3, :3], to_mask[:3, 3], parcellation.shape, order=0, prefilter=False
        )
        > 0
    )
    if not lesion.any():
        raise ScanError(
            f"{mask.origin}: nothing of the mask is left on the grid of {parcellation.origin.name}, expected lesions "
            "as large as its voxels; resample the mask yourself"
        ) from other_grid
    before_ml, after_ml = int(drawn.sum()) * mask.voxel_ml, int(lesion.sum()) * parcellation.voxel_ml
    told = f"{before_ml:.3g} ml became {after_ml:.3g} ml"
    notes = [f"the mask lies on another grid and was resampled to the parcellation's by nearest neighbour: {told}"]
    if in_view < 1:
        notes.append(f"{1 - in_view:.0%} of the mask lies outside the parcellation's field of view")
    return lesion, notes


def read_names(path: Path) -> dict[int, str]:
    """Names of regions by number: a BIDS look-up table (`_dseg.tsv`: index, name) or FreeSurfer's (`…LUT.txt`).

    Raises:
        UsageError: if it is neither.
    """
    try:
        lines = small_text(path).removeprefix("\ufeff").splitlines()
    except (OSError, ValueError) as error:
        raise UsageError(f"{path}: cannot be read ({error}), expected a look-up table of text in UTF-8") from error
    heading = [cell.strip() for cell in lines[0].split("\t")] if lines else []
    if {"index", "name"} <= set(heading):
        columns = heading.index("index"), heading.index("name")
        rows = [[cell.strip() for cell in line.split("\t")] for line in lines[1:] if line.strip()]
        named = [tuple(row[column] for column in columns) for row in rows if len(row) > max(columns)]
        if len(named) == len(rows) and all(re.fullmatch(r"-?\d+", index) for index, _ in named):
            return {int(index): name for index, name in named}
    found = [LUT_LINE.fullmatch(line) for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if found and all(found):
        return {int(line[1]): line[2] for line in found if line}
    raise UsageError(
        f"{path}: is no look-up table, expected tabs and the columns index and name (BIDS _dseg.tsv), or lines such as "
        "'17 Left-Hippocampus 220 216 20 0' (FreeSurferColorLUT.txt); give another --names"
    )


def write_relabelled(path: Path, made: Relabelled, parcellation: Scan, mask: Scan, names: Path | None) -> list[Path]:
    """Write the parcellation, the table of volumes with its description, and, last, the sidecar.

    Args:
        path: of the parcellation: `.nii.gz`, `.nii`, `.mgz` or `.mgh`.
        made: what to write.
        parcellation: that it was made from.
        mask: of the lesion.
        names: the look-up table that was used.

    Returns:
        The files, the parcellation first.

    Raises:
        OutputError: if they cannot be written.
    """
    table, described, sidecar = _beside(path)
    if is_mgh(path):
        write_mgh(path, made.labels, parcellation)
    else:
        write_nifti(path, made.labels, replace(parcellation, slope=1.0, intercept=0.0), mark=MARK)
    text = made.table.assign(name=[table_cell(name) for name in made.table["name"]]).to_csv(
        sep="\t", index=False, float_format="%.6g", lineterminator="\n"
    )
    write_text(table, text)
    write_json(described, COLUMNS)
    written = [path, table, described]
    sources = {"Source": parcellation, "Mask": mask}
    write_json(
        sidecar,
        {
            "Description": "Parcellation of a filled scan, with the lesion as a label",
            "BIDSVersion": BIDS_VERSION,
            "Sources": [scan.origin.name for scan in sources.values()],
            "GeneratedBy": [{"Name": NAME, "Version": __version__}],
            "Request": {
                **{name: _file(scan.origin) for name, scan in sources.items()},
                "Names": None if names is None else _file(names),
                "Label": made.label,
            },
            "LesionMl": float(made.table["after_ml"].iloc[-1]),
            "InNoRegionMl": made.outside_ml,
            "Notes": made.notes,
            "Outputs": {each.name: sha256(each) for each in written},
        },
    )
    return [*written, sidecar]


def check_output(path: Path, inputs: list[Path], overwrite: bool) -> None:
    """Refuse a name that cannot be written to, before anything is read.

    Raises:
        UsageError: if it is of another kind, or it or a file that is written beside it is an input, or exists and
            `overwrite` is not given.
    """
    if not (is_nifti(path) or is_mgh(path)):
        raise UsageError(f"-o {path}: expected a name that ends with .nii.gz, .nii or {' or '.join(SUFFIXES)}")
    read = {given.absolute().resolve() for given in inputs}
    for written in (path, *_beside(path)):
        told = f"-o {path}: " if written == path else f"-o {path}: writes {written} too, which "
        if written.absolute().resolve() in read:
            raise UsageError(f"{told}is one of the files that are read, expected another name; choose one")
        if written.exists() and not overwrite:
            raise UsageError(f"{told}exists; choose another name, or give --overwrite")


def _beside(path: Path) -> tuple[Path, Path, Path]:
    """The table of volumes, its description and the sidecar of a parcellation."""
    base = path.name[: -len(path.suffix)] if is_mgh(path) else stem(path)
    table, described, sidecar = (path.with_name(f"{base}{end}") for end in ("_volumes.tsv", "_volumes.json", ".json"))
    return table, described, sidecar


def _file(path: Path) -> dict[str, str]:
    return {"Name": path.name, "Sha256": sha256(path)}
