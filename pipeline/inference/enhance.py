"""Lesion contrast enhancement (GVS, Section III-C): the pathological residual, added once more."""

from dataclasses import replace

import numpy as np

from pipeline.errors import UsageError
from pipeline.inference.products import Product, Result
from pipeline.inference.stored import add_intensity


def enhance(result: Result, alpha: float) -> Result:
    """x_en = x_p + α (x_p − x_s).

    GVS Eq. 7 is printed as x_p + α (x_s − x_p), which moves towards the healthy image and lowers the lesion's
    contrast; the text says that the extracted pathological signal is added to the original, which is the sign built
    here. A negative α gives the printed direction.

    Args:
        result: of a translator: the scan x_p with its pseudo-healthy image x_s, and their difference.
        alpha: degree of enhancement; 0 gives the input back, bit for bit. The paper tries 0.3 to 1.0.

    Returns:
        The result with the enhanced image as its only product, in the scan's data type, or in a wider one if that does
        not hold it.
    """
    if not np.isfinite(alpha):
        raise UsageError(f"alpha must be a finite number, found {alpha}")
    difference, scan = result.first("difference"), result.scan
    if difference is None:
        raise UsageError("found a result without a difference image, expected one of a translator")
    notes: list[str] = []
    stored = scan.stored.copy(order="K")
    where = difference.voxels != 0
    if alpha != 0:
        anomaly = difference.voxels[where].astype(np.float32) * np.float32(scan.slope)
        stored, notes = add_intensity(stored, where, np.float32(alpha) * anomaly, scan.slope)
    meaning = f"The scan with its pathological residual added once more, times {alpha:g}"
    return replace(
        result,
        products=(Product("enhanced", "image", stored, "scan", "lesion-enhanced", meaning),),
        notes=[*result.notes, *notes],
        warnings=[],
        shown=result.products,
        facts={**result.facts, "ChangedVoxels": int((stored != scan.stored).sum())},
        method=(*result.method, f"The difference of the scan and this version was added to the scan {alpha:g} times."),
    )
