"""What a method changed in a scan: a mask of the disease that it saw, and amounts in millilitres."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.inference.translator import Twin

CHANGE = 0.1  # of the intensity window; fainter changes are seen by PSNR, not by readers
# Smaller islands are noise of the network rather than lesions: a cube of less than 4 mm.
SMALLEST_ML = 0.05
# Of the largest area in a slice. Of 88 gliomas in slabs of 60 mm, this finds 86 % of the cut ends, and 93 % of what it
# finds are.
CUT = 0.25
NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)


def lesion_mask(twin: Twin) -> NDArray[np.bool_]:
    """Where the method changed the scan by more than a tenth of the window, in islands of 0.05 ml or more.

    It is what the method took for disease, brighter than healthy or darker; nobody drew it.

    Returns:
        Shape (X, Y, Z).
    """
    mask: NDArray[np.bool_] = np.abs(twin.anomaly) > CHANGE * twin.window.width
    for box in ndimage.find_objects(mask.view(np.uint8)):  # one, or none if nothing changed
        labels, _ = ndimage.label(mask[box], NEIGHBOURS)
        large = np.bincount(labels.ravel()) * _voxel_ml(twin) >= SMALLEST_ML
        large[0] = False
        mask[box] = large[labels]
    return mask


def amounts(twin: Twin, lesion: NDArray[np.bool_]) -> dict[str, Any]:
    """How much was changed, for the sidecar and the index.

    Args:
        twin: the result.
        lesion: from `lesion_mask`.

    Returns:
        `ChangedMl`: |input − twin| above a tenth of the window; of this `RemovedMl` darker and `AddedMl` brighter in
        the twin; `LesionMl`; `EditedMl`, where the method was allowed to change the scan; `ChangedPercent` of that, and
        its `MeanAbsoluteChange` as a share of the window.
    """
    change = twin.anomaly / np.float32(twin.window.width)
    removed, added, edited = (int(part.sum()) for part in (change > CHANGE, change < -CHANGE, twin.edited))
    ml = _voxel_ml(twin)
    return {
        "ChangedMl": round((removed + added) * ml, 3),
        "RemovedMl": round(removed * ml, 3),
        "AddedMl": round(added * ml, 3),
        "LesionMl": round(int(lesion.sum()) * ml, 3),
        "EditedMl": round(edited * ml, 3),
        "ChangedPercent": round(100 * (removed + added) / max(edited, 1), 3),
        "MeanAbsoluteChange": round(float(np.abs(change[twin.edited]).mean()), 5) if edited else 0.0,
    }


def cut_off(twin: Twin, lesion: NDArray[np.bool_]) -> str | None:
    """A warning where what was taken for disease is still large in the slab's last slice.

    Returns:
        None where it is not, or nothing lies outside the slab.
    """
    if not twin.left_out:
        return None
    edited, areas = (np.count_nonzero(twin.scan.axial(part), axis=(1, 2)) for part in (twin.edited, lesion))
    inside = np.flatnonzero(edited)
    ends = [place for place in inside[[0, -1]] if areas[place] and 0 < place < len(edited) - 1]
    if not any(areas[place] >= CUT * areas.max() for place in ends):
        return None
    return "what was taken for disease reaches the last edited slice, and may go on beyond it; compare with --whole"


def _voxel_ml(twin: Twin) -> float:
    return abs(float(np.linalg.det(twin.scan.affine[:3, :3]))) / 1000
