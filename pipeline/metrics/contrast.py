"""How much a lesion still stands out of the tissue around it, and how much tissue was left alone."""

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from pipeline.metrics.metric import Columns

# Tissue nearer than the first is part lesion, that further than the second is another region of the brain.
MARGIN_MM, AROUND_MM = 5.0, 15.0


def surroundings(mask: Tensor, foreground: Tensor, spacing_mm: tuple[float, float]) -> Tensor:
    """The tissue around a lesion that it is compared with, bool, shape (N, 1, H, W).

    Args:
        mask: lesion, shape (N, 1, H, W).
        foreground: head or body, same shape.
        spacing_mm: of pixels along H and W.
    """
    inside = grown(mask, AROUND_MM, spacing_mm) & ~grown(mask, MARGIN_MM, spacing_mm)
    return inside & foreground.bool()


def grown(mask: Tensor, mm: float, spacing_mm: tuple[float, float]) -> Tensor:
    """All pixels up to some millimetres from a mask along both axes, bool, shape (N, 1, H, W)."""
    rows, columns = (int(mm / pixel) for pixel in spacing_mm)
    grown_up = max_pool2d(mask.float(), (2 * rows + 1, 1), stride=1, padding=(rows, 0))
    return max_pool2d(grown_up, (1, 2 * columns + 1), stride=1, padding=(0, columns)) > 0


def contrast_sums(twin: Tensor, mask: Tensor, foreground: Tensor, spacing_mm: tuple[float, float]) -> dict[str, Tensor]:
    """What `contrast` is made of, for each slice, (N,): numbers, sums and squares of lesion and surroundings."""
    around, lesion = surroundings(mask, foreground, spacing_mm).double(), mask.double()
    values = twin.double()

    def total(weights: Tensor) -> Tensor:
        return weights.sum(dim=(1, 2, 3))

    return {
        "inside_pixels": total(lesion),
        "inside_sum": total(values * lesion),
        "around_pixels": total(around),
        "around_sum": total(values * around),
        "around_squares": total(values**2 * around),
    }


def contrast(rows: Columns) -> float:
    """|mean of the lesion − mean of its surroundings|, in standard deviations of the surroundings; nan without any."""
    inside, around = rows["inside_pixels"].sum(), rows["around_pixels"].sum()
    if not (inside and around):
        return float("nan")
    mean = rows["around_sum"].sum() / around
    variance = rows["around_squares"].sum() / around - mean**2
    if variance <= 0:
        return float("nan")
    return float(abs(rows["inside_sum"].sum() / inside - mean) / variance**0.5)


def contrast_error(rows: Columns) -> float:
    """|lesion − surroundings of the translation, minus the same of the target|; nan without either.

    Args:
        rows: with the columns of `paired_contrast_sums`.
    """
    made, wanted = (lesion_difference(rows, side) for side in ("translated", "target"))
    return abs(made - wanted)


def lesion_difference(rows: Columns, side: str) -> float:
    """Mean of the lesion − mean of its surroundings, of the `translated` image or the `target`; nan without either."""
    inside, around = rows["inside_pixels"].sum(), rows["around_pixels"].sum()
    if not (inside and around):
        return float("nan")
    return float(rows[f"{side}_inside_sum"].sum() / inside - rows[f"{side}_around_sum"].sum() / around)


def paired_contrast_sums(
    translated: Tensor, target_image: Tensor, mask: Tensor, foreground: Tensor, spacing_mm: tuple[float, float]
) -> dict[str, Tensor]:
    """Numbers and sums of lesion and surroundings in both images, for each slice, (N,)."""
    sums = {
        side: contrast_sums(image, mask, foreground, spacing_mm)
        for side, image in (("translated", translated), ("target", target_image))
    }
    counts = {name: sums["target"][name] for name in ("inside_pixels", "around_pixels")}
    return counts | {
        f"{side}_{name}": values[name] for side, values in sums.items() for name in ("inside_sum", "around_sum")
    }


def identical_counts(
    twin: Tensor, image: Tensor, mask: Tensor, foreground: Tensor, spacing_mm: tuple[float, float]
) -> dict[str, Tensor]:
    """Pixels of normal tissue further than `MARGIN_MM` from the lesion, and how many of them are unchanged, (N,)."""
    normal = foreground.bool() & ~grown(mask, MARGIN_MM, spacing_mm)
    return {
        "far_pixels": normal.sum(dim=(1, 2, 3)),
        "identical_pixels": (normal & torch.eq(twin, image)).sum(dim=(1, 2, 3)),
    }
