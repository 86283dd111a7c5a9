"""The images behind a report: each volume's pathological slices with their pseudo-healthy twins."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import UsageError
from pipeline.evaluation.volumes import Volume
from pipeline.files import written_aside
from pipeline.preprocessing.cohort_format import LEVELS

FOLDER = "twins"


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
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        right, anterior = arrays["spacing_mm"]
        return Twins(
            subject=path.stem,
            places=arrays["places"],
            image=arrays["image"].astype(np.float32) / LEVELS,
            twin=arrays["twin"].astype(np.float32) / LEVELS,
            lesion=arrays["lesion"],
            foreground=arrays["foreground"],
            spacing_mm=(float(right), float(anterior)),
        )
    except Exception as error:  # numpy and zipfile raise whatever their parsers stumble over
        raise UsageError(
            f"{path}: missing or damaged, expected the images of an evaluation; run `phs-pipeline evaluate` again"
        ) from error


def _levels(image: NDArray[np.float32]) -> NDArray[np.uint16]:
    levels: NDArray[np.uint16] = np.rint(image.clip(0, 1) * LEVELS).astype(np.uint16)
    return levels
