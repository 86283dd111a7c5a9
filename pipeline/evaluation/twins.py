"""The images behind a report: each volume's pathological slices with their pseudo-healthy twins."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.evaluation.volumes import Volume
from pipeline.files import require_small_archive, written_aside
from pipeline.preprocessing.cohort_format import LEVELS

FOLDER = "twins"
# A volume of a thousand slices of 512 × 512 pixels takes 1.5 GB.
MOST_BYTES = 2 << 30
FINEST_MM, COARSEST_MM = 0.01, 100
KINDS = {"places": "i", "image": "u", "twin": "u", "lesion": "b", "foreground": "b", "spacing_mm": "f"}


@dataclass(frozen=True)
class Twins:
    """The pathological slices of one volume, N of them, with axes (right, anterior).

    Attributes:
        subject: whose volume.
        places: index of each slice in the subject's slab, shape (N,).
        image: input in [0, 1], shape (N, H, W), float32.
        twin: pseudo-healthy image, as `image`.
        lesion: annotated lesion, bool, same shape.
        foreground: body, bool, same shape.
        spacing_mm: pixel size along (right, anterior).
    """

    subject: str
    places: NDArray[np.int64]
    image: NDArray[np.float32]
    twin: NDArray[np.float32]
    lesion: NDArray[np.bool_]
    foreground: NDArray[np.bool_]
    spacing_mm: tuple[float, float]

    @classmethod
    def of(cls, volume: Volume, twin: Tensor) -> "Twins":
        """A volume's slices and what was made of them, shape (N, 1, H, W) in [0, 1]."""
        image, lesion, foreground = (t[:, 0].numpy() for t in (volume.image, volume.lesion, volume.foreground))
        made = twin[:, 0].cpu().numpy()
        return cls(volume.subject, np.asarray(volume.places), image, made, lesion, foreground, volume.spacing_mm)


def write_twins(folder: Path, twins: Twins) -> None:
    """Write `<subject>.npz` into a folder; images to 16 bits."""
    with written_aside(folder / f"{twins.subject}.npz") as aside:
        np.savez_compressed(
            aside,
            places=np.asarray(twins.places, np.int64),
            image=_levels(twins.image),
            twin=_levels(twins.twin),
            lesion=twins.lesion,
            foreground=twins.foreground,
            spacing_mm=np.asarray(twins.spacing_mm, np.float64),
        )


def read_twins(path: Path) -> Twins:
    """Read one volume's file.

    Raises:
        UsageError: if it is missing or damaged.
    """
    try:
        arrays = _arrays(path)
        right, anterior = arrays["spacing_mm"]
        return Twins(
            subject=path.stem,
            places=arrays["places"],
            image=arrays["image"].astype(np.float32) / np.float32(LEVELS),
            twin=arrays["twin"].astype(np.float32) / np.float32(LEVELS),
            lesion=arrays["lesion"],
            foreground=arrays["foreground"],
            spacing_mm=(float(right), float(anterior)),
        )
    except Exception as error:  # numpy and zipfile raise whatever their parsers stumble over
        raise UsageError(
            f"{path}: missing or damaged, expected the images of an evaluation; run `phs-pipeline evaluate` again"
        ) from error


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file by name, of the types and shapes that `Twins` has.

    Raises:
        ValueError: if they are not, or larger than any volume; numpy and zipfile raise further ones.
    """
    require_small_archive(path, MOST_BYTES)
    with np.load(path, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in KINDS}
    shape = arrays["image"].shape
    fits = (
        all(arrays[name].dtype.kind == kind for name, kind in KINDS.items())
        and all(arrays[name].shape == shape for name in ("twin", "lesion", "foreground"))
        and (len(shape), arrays["places"].shape, arrays["spacing_mm"].shape) == (3, shape[:1], (2,))
        and all(FINEST_MM <= side <= COARSEST_MM for side in arrays["spacing_mm"])
    )
    if not fits or not arrays["image"].size:
        raise ValueError("arrays of other types or shapes")
    return arrays


def _levels(image: NDArray[np.float32]) -> NDArray[np.uint16]:
    levels: NDArray[np.uint16] = np.rint(image.clip(0, 1) * LEVELS).astype(np.uint16)
    return levels
