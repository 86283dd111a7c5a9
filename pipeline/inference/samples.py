"""What is written of a sampler's images: a NIfTI slice each, a picture of them, and a sidecar.

NIfTI and not PNG: it keeps the float values and the size of a pixel, its header says SYNTHETIC wherever the file goes,
and by that header `verify` knows the file and every command here refuses it as a scan.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.files import remove_partials, sha256, write_json
from pipeline.identity import NAME
from pipeline.inference.outputs import WARNING
from pipeline.inference.verify import says_ours
from pipeline.mosaic import grey, mosaic, save_png
from pipeline.scans import Scan, write_nifti

PICTURE = "samples.png"
# Not samples.json: an index takes a sidecar with a picture of its name for that of a scan's product.
SIDECAR = "sampling.json"
SAMPLE = re.compile(r"sample-\d{4}\.nii\.gz")
LONGEST_SIDE = 8  # of the picture, in images


def write_samples(
    folder: Path,
    images: NDArray[np.float32],
    spacing_mm: float,
    request: Mapping[str, Any],
    about: Mapping[str, Any],
) -> list[Path]:
    """Write `sample-0001.nii.gz` and so on, `samples.png` of the first 64, and, last, `sampling.json`.

    Samples of an earlier run are removed before; other files of the folder stay.

    Args:
        folder: made if it is absent.
        images: in [0, 1], shape (count, right, anterior).
        spacing_mm: side of a pixel; a slice is taken to be as thick.
        request: what was asked for: seed, count, settings, weights.
        about: further facts for the sidecar.

    Returns:
        The files.

    Raises:
        OutputError: if they cannot be written.
    """
    samples = [folder / f"sample-{number:04d}.nii.gz" for number in range(1, len(images) + 1)]
    _remove_earlier(folder)
    for path, image in zip(samples, images, strict=True):
        _write_slice(path, image, spacing_mm)
    picture, sidecar = folder / PICTURE, folder / SIDECAR
    warning = WARNING.format(title="images")
    _draw(picture, images, warning)
    written = [*samples, picture]
    content = {
        "Description": "Images drawn from a generator, of no person",
        "SyntheticData": True,
        "Warning": warning,
        "GeneratedBy": [{"Name": NAME, "Version": __version__}],
        **about,
        "Request": {"Source": None, **request},
        "Outputs": {path.name: sha256(path) for path in written},
    }
    write_json(sidecar, content)
    return [*written, sidecar]


def _remove_earlier(folder: Path) -> None:
    """The sidecar first: without it, nothing says that the rest is complete."""
    (folder / SIDECAR).unlink(missing_ok=True)
    ours = [path for path in folder.glob("sample-*") if SAMPLE.fullmatch(path.name) and says_ours(path)]
    for path in ours:
        path.unlink()
    remove_partials([*ours, folder / PICTURE, folder / SIDECAR])


def _write_slice(path: Path, image: NDArray[np.float32], spacing_mm: float) -> None:
    """A volume of one axial slice, whose first voxel lies in the origin: an image of nobody has no other place."""
    voxels = image[..., None]
    header = nib.Nifti1Image(voxels, np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])).header
    header.set_xyzt_units("mm")
    write_nifti(path, voxels, Scan(voxels, 1.0, 0.0, header, path))


def _draw(path: Path, images: NDArray[np.float32], warning: str) -> None:
    columns = min(LONGEST_SIDE, math.ceil(math.sqrt(len(images))))
    shown = [grey(image) for image in images[: columns * LONGEST_SIDE]]
    shown += [np.zeros_like(shown[0])] * (-len(shown) % columns)
    rows = [shown[first : first + columns] for first in range(0, len(shown), columns)]
    save_png(path, mosaic(["SYNTHETIC"] * columns, rows, warning))
