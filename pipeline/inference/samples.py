"""What is written of a sampler's images: a NIfTI slice each, a picture of them, and a sidecar.

NIfTI and not PNG: it keeps the float values and the size of a pixel, its header says SYNTHETIC wherever the file goes,
and by that header `verify` knows the file and every command here refuses it as a scan.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from pipeline import __version__
from pipeline.errors import UsageError
from pipeline.files import sha256, write_json
from pipeline.identity import NAME
from pipeline.inference.outputs import WARNING
from pipeline.inference.sampler import Sampler, Samples, masks_on
from pipeline.inference.verify import says_ours
from pipeline.mosaic import grey, mosaic, outlined, save_png
from pipeline.scans import Scan, write_nifti

PICTURE = "samples.png"
# Not samples.json: an index takes a sidecar with a picture of its name for that of a scan's product.
SIDECAR = "sampling.json"
SAMPLE = re.compile(r"sample-\d{4}(_mask)?\.nii\.gz")
LONGEST_SIDE = 8  # of the picture, in images


@dataclass(frozen=True)
class Draw:
    """What is asked of a sampler.

    Args:
        count: how many images.
        seed: of their latents.
        label: the class of all, where images are conditioned on one; None takes all classes in turn.
        masks: files of lesion masks, where images are conditioned on these.
    """

    count: int = 64
    seed: int = 0
    label: str | None = None
    masks: Sequence[Path | str] = ()


def draw_samples(
    folder: Path, sampler: Sampler, draw: Draw, provenance: Mapping[str, Any], references: Sequence[str]
) -> list[Path]:
    """Draw images and write them, as `write_samples` does.

    Args:
        folder: made if it is absent.
        sampler: with its weights.
        draw: what is asked for.
        provenance: of the sampler, for the sidecar.
        references: to cite.

    Returns:
        The files.

    Raises:
        UsageError: if images are not conditioned on what is given, or lack what they are conditioned on.
        ScanError: if a mask cannot be used.
        OutputError: if files cannot be written.
    """
    files = [Path(path) for path in draw.masks]
    masks = masks_on(sampler.grid, files) if sampler.grid is not None and files else None
    if files and masks is None:
        raise UsageError(
            f"{files[0]}: found a mask, expected none for a sampler of the condition {sampler.condition}; leave it out"
        )
    samples = sampler.draw(draw.count, draw.seed, draw.label, masks)
    request = {
        "Seed": draw.seed,
        "Count": draw.count,
        **sampler.settings,
        **({} if draw.label is None else {"Class": draw.label}),
        **({"MasksSha256": [sha256(path) for path in files]} if files else {}),
        **provenance,
    }
    about = {**provenance, "Citations": list(references), "Device": str(sampler.device)}
    return write_samples(folder, samples, sampler.spacing_mm, request, about)


def write_samples(
    folder: Path,
    samples: Samples,
    spacing_mm: float,
    request: Mapping[str, Any],
    about: Mapping[str, Any],
) -> list[Path]:
    """Write `sample-0001.nii.gz` and so on, `samples.png` of the first 64, and, last, `sampling.json`.

    Where there are masks, `sample-0001_mask.nii.gz` lies beside each, and the picture shows their outlines.

    Samples of an earlier run are removed before; other files of the folder stay.

    Args:
        folder: made if it is absent.
        samples: what was drawn.
        spacing_mm: side of a pixel; a slice is taken to be as thick.
        request: what was asked for: seed, count, settings, weights.
        about: further facts for the sidecar.

    Returns:
        The files.

    Raises:
        OutputError: if they cannot be written.
    """
    _remove_earlier(folder)
    slices: dict[Path, NDArray[np.generic]] = {}
    for number, image in enumerate(samples.images):
        slices[folder / f"sample-{number + 1:04d}.nii.gz"] = image
        if samples.masks is not None:
            slices[folder / f"sample-{number + 1:04d}_mask.nii.gz"] = samples.masks[number]
    for path, voxels in slices.items():
        _write_slice(path, voxels, spacing_mm)
    picture, sidecar = folder / PICTURE, folder / SIDECAR
    warning = WARNING.format(title="images")
    _draw(picture, samples, warning)
    written = [*slices, picture]
    content = {
        "Description": "Images drawn from a generator, of no person",
        "SyntheticData": True,
        "Warning": warning,
        "GeneratedBy": [{"Name": NAME, "Version": __version__}],
        **about,
        **({} if samples.labels is None else {"Classes": list(samples.labels)}),
        "Request": {"Source": None, **request},
        "Outputs": {path.name: sha256(path) for path in written},
    }
    write_json(sidecar, content)
    return [*written, sidecar]


def _remove_earlier(folder: Path) -> None:
    """The sidecar first: without it, nothing says that the rest is complete."""
    (folder / SIDECAR).unlink(missing_ok=True)
    for path in folder.glob("sample-*"):
        if SAMPLE.fullmatch(path.name) and says_ours(path):
            path.unlink()


def _write_slice(path: Path, pixels: NDArray[np.generic], spacing_mm: float) -> None:
    """A volume of one axial slice, whose first voxel lies in the origin: an image of nobody has no other place."""
    voxels = pixels[..., None]
    header = nib.Nifti1Image(voxels, np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])).header
    header.set_xyzt_units("mm")
    write_nifti(path, voxels, Scan(voxels, 1.0, 0.0, header, path))


def _draw(path: Path, samples: Samples, warning: str) -> None:
    columns = min(LONGEST_SIDE, math.ceil(math.sqrt(len(samples.images))))
    first_ones = samples.images[: columns * LONGEST_SIDE]
    if samples.masks is None:
        shown = [grey(image) for image in first_ones]
    else:
        masks = samples.masks[: len(first_ones)].astype(np.float32)
        shown = [outlined(image, mask) for image, mask in zip(first_ones, masks, strict=True)]
    shown += [np.zeros_like(shown[0])] * (-len(shown) % columns)
    rows = [shown[first : first + columns] for first in range(0, len(shown), columns)]
    save_png(path, mosaic(["SYNTHETIC"] * columns, rows, warning))
