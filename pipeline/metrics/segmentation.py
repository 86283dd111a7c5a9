"""How well a segmentation agrees with an annotation: overlap (Dice, precision, recall) and distance (HD95)."""

import torch
from monai.metrics import compute_dice, compute_hausdorff_distance
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


def _count(mask: Tensor) -> Tensor:
    return mask.bool().sum(dim=(1, 2, 3)).float()


def _require_masks(predicted: Tensor, lesion: Tensor) -> None:
    if predicted.shape != lesion.shape or predicted.ndim != 4 or predicted.shape[1] != 1:
        raise ValueError(
            "predicted and lesion must have the same shape (B, 1, H, W), "
            f"got {tuple(predicted.shape)} and {tuple(lesion.shape)}"
        )
