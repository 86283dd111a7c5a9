"""Lesion contrast enhancement (GVS, Section III-C): the pathological residual, added once more."""

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import UsageError
from pipeline.inference.translator import Twin, add_intensity


def enhance(twin: Twin, alpha: float) -> tuple[NDArray[np.generic], list[str]]:
    """x_en = x_p + α (x_p − x_s).

    GVS Eq. 7 is printed as x_p + α (x_s − x_p), which moves towards the healthy image and lowers the lesion's
    contrast; the text says that the extracted pathological signal is added to the original, which is the sign built
    here. A negative α gives the printed direction.

    Args:
        twin: the scan x_p with its pseudo-healthy twin x_s.
        alpha: degree of enhancement; 0 gives the input back, bit for bit. The paper tries 0.3 to 1.0.

    Returns:
        Stored voxels in the scan's data type, or in a wider one if it does not hold them, and notes for the user.
    """
    if not np.isfinite(alpha):
        raise UsageError(f"alpha must be a finite number, found {alpha}")
    stored = twin.scan.stored.copy(order="K")
    if alpha == 0:
        return stored, []
    anomaly = twin.anomaly
    where = anomaly != 0
    return add_intensity(stored, where, np.float32(alpha) * anomaly[where], twin.scan.slope)
