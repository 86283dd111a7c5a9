"""How well a segmentation agrees with an annotation: overlap, distance (HD95), and topology (holes, fragments)."""

from collections.abc import Callable

import numpy as np
import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor


def dice(predicted: Tensor, lesion: Tensor) -> Tensor:
    """Dice coefficient, 2 |P ∩ L| / (|P| + |L|).

    Args:
        predicted: P, lesion that a segmentor found, bool or 0 and 1, shape (B, 1, H, W).
        lesion: L, annotated lesion, bool or 0 and 1, same shape.

    Returns:
        Dice in [0, 1], one value per sample, shape (B,); `nan` where no lesion is annotated.

    Raises:
        ValueError: if the shapes differ, or are not (B, 1, H, W).

    Example:
        >>> import torch
        >>> dice(torch.tensor([[[[1, 1, 0, 0]]]]), torch.tensor([[[[0, 1, 1, 1]]]]))
        tensor([0.4000])
    """
    _require_masks(predicted, lesion)
    agreement: Tensor = compute_dice(predicted.bool().float(), lesion.bool().float())
    return agreement[:, 0]


def pooled_dice(predicted: Tensor, lesion: Tensor) -> float:
    """Dice coefficient of all samples taken together.

    Args:
        predicted: P, lesion that a segmentor found, bool, any shape.
        lesion: L, annotated lesion, bool, same shape.

    Returns:
        In [0, 1]; 0 where neither has a pixel.

    Example:
        >>> import torch
        >>> pooled_dice(torch.tensor([True, True, False, False]), torch.tensor([False, True, True, True]))
        0.4000000059604645
    """
    return float(2 * (predicted & lesion).sum() / (predicted.sum() + lesion.sum()).clamp_min(1))


def precision(predicted: Tensor, lesion: Tensor) -> Tensor:
    """Share of the found pixels that are lesion, |P ∩ L| / |P|.

    Args:
        predicted: P, lesion that a segmentor found, bool or 0 and 1, shape (B, 1, H, W).
        lesion: L, annotated lesion, bool or 0 and 1, same shape.

    Returns:
        Precision in [0, 1], one value per sample, shape (B,); `nan` where nothing was found.

    Raises:
        ValueError: if the shapes differ, or are not (B, 1, H, W).
    """
    _require_masks(predicted, lesion)
    return _count(predicted.bool() & lesion.bool()) / _count(predicted)


def recall(predicted: Tensor, lesion: Tensor) -> Tensor:
    """Share of the lesion's pixels that were found, |P ∩ L| / |L|; also called sensitivity.

    Args:
        predicted: P, lesion that a segmentor found, bool or 0 and 1, shape (B, 1, H, W).
        lesion: L, annotated lesion, bool or 0 and 1, same shape.

    Returns:
        Recall in [0, 1], one value per sample, shape (B,); `nan` where no lesion is annotated.

    Raises:
        ValueError: if the shapes differ, or are not (B, 1, H, W).
    """
    _require_masks(predicted, lesion)
    return _count(predicted.bool() & lesion.bool()) / _count(lesion)


def hd95(predicted: Tensor, lesion: Tensor, spacing_mm: tuple[float, float] = (1.0, 1.0)) -> Tensor:
    """95 % Hausdorff distance between the outlines, as MONAI computes it.

    The 95th percentile (interpolated) of the distances from each pixel of an outline to the other outline, in both
    directions; the larger of the two. An outline consists of the mask's pixels that have a neighbour outside the mask
    across an edge; a pixel at the image's border counts as such. Distances run between pixel centres.

    Args:
        predicted: lesion that a segmentor found, bool or 0 and 1, shape (B, 1, H, W).
        lesion: annotated lesion, bool or 0 and 1, same shape.
        spacing_mm: pixel size along (H, W).

    Returns:
        Distance in mm, one value per sample, shape (B,); `nan` where either mask is empty.

    Raises:
        ValueError: if the shapes differ, or are not (B, 1, H, W).
    """
    _require_masks(predicted, lesion)
    measurable = (_count(predicted) > 0) & (_count(lesion) > 0)
    distance = torch.full((len(predicted),), float("nan"), device=predicted.device)
    if measurable.any():
        distance[measurable] = compute_hausdorff_distance(
            predicted[measurable].bool().float(),
            lesion[measurable].bool().float(),
            include_background=True,
            percentile=95,
            spacing=list(spacing_mm),
        )[:, 0].to(distance)
    return distance


def holes(predicted: Tensor, lesion: Tensor) -> Tensor:
    """Holes in what was found: regions that it encloses and that are annotated lesion, in part or wholly.

    A hole that is annotated as one is none. Regions are connected across edges, what encloses them across corners too.

    Args:
        predicted: P, lesion that a segmentor found, bool or 0 and 1, shape (B, 1, H, W).
        lesion: L, annotated lesion, bool or 0 and 1, same shape.

    Returns:
        Number of holes, one value per sample, shape (B,); `nan` where nothing was found.

    Raises:
        ValueError: if the shapes differ, or are not (B, 1, H, W).

    Example:
        >>> import torch
        >>> ring = torch.tensor([[[[1, 1, 1], [1, 0, 1], [1, 1, 1]]]])
        >>> holes(ring, torch.ones_like(ring)), holes(ring, ring)
        (tensor([1.]), tensor([0.]))
    """
    return _of_pieces(predicted, lesion, _holes)


def fragments(predicted: Tensor, lesion: Tensor) -> Tensor:
    """Pieces of what was found beyond one for each annotated lesion that it touches.

    These are pieces where no lesion is annotated, and all but one of those that a lesion was found in. Pieces and
    lesions are connected across edges and corners.

    Args:
        predicted: P, lesion that a segmentor found, bool or 0 and 1, shape (B, 1, H, W).
        lesion: L, annotated lesion, bool or 0 and 1, same shape.

    Returns:
        Number of fragments, one value per sample, shape (B,); `nan` where nothing was found.

    Raises:
        ValueError: if the shapes differ, or are not (B, 1, H, W).

    Example:
        >>> import torch
        >>> found = torch.tensor([[[[1, 0, 1, 0, 1]]]])
        >>> fragments(found, torch.tensor([[[[1, 1, 1, 0, 0]]]]))
        tensor([2.])
    """
    return _of_pieces(predicted, lesion, _fragments)


CORNERS = np.ones((3, 3), dtype=bool)


def _of_pieces(
    predicted: Tensor, lesion: Tensor, count: Callable[[NDArray[np.bool_], NDArray[np.bool_]], int]
) -> Tensor:
    _require_masks(predicted, lesion)
    pairs = zip(predicted[:, 0].bool().cpu().numpy(), lesion[:, 0].bool().cpu().numpy(), strict=True)
    counts = [count(found, drawn) if found.any() else float("nan") for found, drawn in pairs]
    return torch.tensor(counts, dtype=torch.float32, device=predicted.device)


def _holes(found: NDArray[np.bool_], drawn: NDArray[np.bool_]) -> int:
    # What the padding touches is outside, at the image's border too.
    regions, _ = ndimage.label(np.pad(~found, 1, constant_values=True))
    inside = regions[1:-1, 1:-1]
    return len(set(np.unique(inside[drawn & ~found])) - {regions[0, 0]})


def _fragments(found: NDArray[np.bool_], drawn: NDArray[np.bool_]) -> int:
    pieces, count = ndimage.label(found, CORNERS)
    lesions, _ = ndimage.label(drawn, CORNERS)
    common = found & drawn
    right, touched = len(np.unique(pieces[common])), len(np.unique(lesions[common]))
    return count - right + max(0, right - touched)


def _count(mask: Tensor) -> Tensor:
    return mask.bool().sum(dim=(1, 2, 3)).float()


def _require_masks(predicted: Tensor, lesion: Tensor) -> None:
    if predicted.shape != lesion.shape or predicted.ndim != 4 or predicted.shape[1] != 1:
        raise ValueError(
            "predicted and lesion must have the same shape (B, 1, H, W), "
            f"got {tuple(predicted.shape)} and {tuple(lesion.shape)}"
        )
