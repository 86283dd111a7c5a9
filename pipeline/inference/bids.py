"""BIDS derivatives: a scan in a BIDS dataset gives results that lie, are named and are described as BIDS asks.

Brain Imaging Data Structure 1.10, "Common data types and metadata" and "Imaging data types" of its derivatives.
"""

import os
from pathlib import Path
from typing import Any

from pipeline import __version__
from pipeline.errors import UsageError
from pipeline.files import read_json, write_json, write_text
from pipeline.identity import NAME, made_by_us
from pipeline.scans.sources import Source

BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
# Pictures, pages, tables and records have no place in BIDS; a validator reads over what this file names.
BIDSIGNORE = "*.png\n*.html\n*.csv\n*_number.json\nrun.json\nsigned.json*\nfailed\nslurm\n"
README = """\
SYNTHETIC images for research, NOT FOR DIAGNOSIS.

*_desc-<product>_*           an image, a difference or a map on the scan's own grid, for example desc-pseudohealthy, the
                             scan with the disease taken out, and desc-anomaly, what was taken out
*_desc-<product>_*_number*   a number or class that was estimated
*_label-<label>_*_mask*      where a label was found, for example where disease was taken out

Each sidecar says what its product is; that of the main product tells from what scan, with what weights and settings it
was made. Made by phs-pipeline.
"""


def derivative_folder(out: Path, source: Source) -> Path:
    """Where the results of a scan lie: `out/sub-01[/ses-1]/anat` for one of a BIDS dataset, else `out`."""
    place = _in_dataset(source)
    return out if place is None else out / place.parent


def bids_sidecar(source: Source, skull_stripped: bool | None, description: str) -> dict[str, Any]:
    """What BIDS asks of the sidecar of a derivative image.

    Args:
        source: the scan that it was made from.
        skull_stripped: whether the image shows the brain only; None where that is not known, and then not said.
        description: one sentence on what the image is.

    Returns:
        `Description`, `SkullStripped` where it is known, and `Sources` if the scan lies in a BIDS dataset.
    """
    place = _in_dataset(source)
    sources = {} if place is None else {"Sources": [f"bids:raw:{place.as_posix()}"]}
    known = {} if skull_stripped is None else {"SkullStripped": skull_stripped}
    return {"Description": description, **known, **sources}


def write_dataset_description(out: Path, dataset: Path) -> None:
    """Make `out` a BIDS derivative of a dataset: its description, a README, and what validators should not look at.

    Args:
        out: output folder.
        dataset: root of the BIDS dataset that the scans lie in.

    Raises:
        UsageError: if `out` is another dataset, such as the scans' own.
    """
    path = out / DESCRIPTION
    present = read_json(path)
    raw = os.path.relpath(dataset, out).replace(os.sep, "/")
    name = read_json(dataset / DESCRIPTION).get("Name") or dataset.absolute().name
    description = {
        "Name": f"Pseudo-healthy synthesis of {name}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": NAME, "Version": __version__}],
        "SourceDatasets": [{"URL": raw}],
        # What `bids:raw:` in the sidecars stands for.
        "DatasetLinks": {"raw": raw},
    }
    if path.exists() and not (made_by_us(present) and present.get("DatasetLinks") == description["DatasetLinks"]):
        raise UsageError(
            f"{path}: describes another dataset, expected results of {dataset} or none; choose another output folder"
        )
    write_text(out / ".bidsignore", BIDSIGNORE)
    write_text(out / "README", README)
    # Last: whoever finds it finds the others.
    write_json(path, description)


def _in_dataset(source: Source) -> Path | None:
    """Where in its BIDS dataset a scan lies; None if it lies in no dataset, or not where raw scans do."""
    if source.dataset is None:
        return None
    place = Path(os.path.relpath(source.path, source.dataset))
    return place if len(place.parts) > 1 and place.parts[0].startswith("sub-") else None
