"""A cohort of phantoms on disk: raw scans in BIDS, masks and healthy truth as its derivatives."""

import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.errors import UsageError
from pipeline.files import small_text, write_json, write_text, written_aside

BIDS_VERSION = "1.10.0"
GENERATOR = "phs-pipeline phantom"


def refuse_other_content(directory: Path, made_by: Mapping[str, Any]) -> None:
    """Refuse a folder that holds anything else than a phantom cohort made in the same way.

    Args:
        directory: a new or empty folder, or one that `write_descriptions` has written to.
        made_by: seed and further arguments, as `write_descriptions` is given them.

    Raises:
        UsageError: if it is another.
    """
    if directory.exists() and not directory.is_dir():
        raise UsageError(f"{directory}: is a file where a folder was expected; choose another name")
    if not directory.exists() or all(entry.name.startswith(".") for entry in directory.iterdir()):
        return
    try:
        description = json.loads(small_text(directory / "dataset_description.json"))
        found = dict(description["GeneratedBy"][0])
        ours = found.pop("Name") == GENERATOR
    except (OSError, ValueError, LookupError, TypeError):
        ours, found = False, {}
    if not ours:
        raise UsageError(
            f"{directory}: holds files that are not a phantom cohort where a new or empty folder was "
            "expected; choose another folder"
        )
    if found.get("Seed") != made_by["Seed"]:
        raise UsageError(
            f"{directory}: holds the phantom cohort of seed {found.get('Seed')} where seed {made_by['Seed']} was asked "
            f"for; use --seed {found.get('Seed')} or choose another folder"
        )
    found.pop("Version", None)
    other = sorted(key for key in {*found, *made_by} if found.get(key) != made_by.get(key))
    if other:
        raise UsageError(
            f"{directory}: holds a phantom cohort made with other arguments ({', '.join(other)}); choose another folder"
        )


def write_descriptions(
    directory: Path, name: str, made_by: Mapping[str, Any], readme: str, derivatives: Mapping[str, str], licence: str
) -> None:
    """Write `dataset_description.json` and `README` of a dataset and its derivatives.

    Args:
        directory: of the dataset.
        name: of the dataset.
        made_by: seed and further arguments of the generator.
        readme: of the dataset, and of each derivative.
        derivatives: what each folder under `derivatives` holds.
        licence: of the data.
    """
    common = {
        "BIDSVersion": BIDS_VERSION,
        "License": licence,
        "GeneratedBy": [{"Name": GENERATOR, "Version": __version__, **made_by}],
    }
    derived: dict[str, Any] = {
        **common,
        "DatasetType": "derivative",
        "SourceDatasets": [{"URL": "../.."}],
        "DatasetLinks": {"raw": "../.."},
    }
    # Written first: an interrupted cohort is recognised as ours and completed by the next run.
    write_json(directory / "dataset_description.json", {"Name": name, "DatasetType": "raw", **common})
    for pipeline, held in derivatives.items():
        folder = directory / "derivatives" / pipeline
        write_json(folder / "dataset_description.json", {"Name": f"{name}: {held}", **derived})
        write_text(folder / "README", readme)
    write_text(directory / "README", readme)


def write_participants(directory: Path, rows: Mapping[str, Mapping[str, str]]) -> None:
    """Write `participants.tsv`: participants by label, with the same further columns each."""
    columns = list(next(iter(rows.values()), {}))
    lines = ["\t".join(["participant_id", *columns])]
    lines += ["\t".join([label, *(cells[column] for column in columns)]) for label, cells in rows.items()]
    write_text(directory / "participants.tsv", "\n".join(lines) + "\n")


def write_volume(path: Path, voxels: NDArray[np.generic], affine: NDArray[np.float64]) -> None:
    """Write a volume as NIfTI, whole or not at all; the same voxels give the same bytes.

    Args:
        path: of the file, `.nii.gz`.
        voxels: shape (X, Y, Z).
        affine: voxel indices to millimetres, (4, 4).
    """
    image = nib.Nifti1Image(voxels, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    # Without a name and a time in the gzip header, the same voxels give the same bytes.
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", compresslevel=6, fileobj=packed, mtime=0) as file:
        file.write(image.to_bytes())
    with written_aside(path) as aside:
        aside.write_bytes(packed.getvalue())
