"""Healthiness: how little lesion a segmentor still finds in the synthetic image (PHS-GAN, Section 4.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor


def healthiness(predicted: Tensor, lesion: Tensor) -> float:
    """Pooled healthiness, h = 1 − E[N(f_pre(x̂_h))] / E[N(m_p)], where N counts lesion pixels.

    Both means run over the same slices, so their ratio is the ratio of the sums. Where the segmentor finds
    more lesion than was annotated the value is negative and stays so: clipping would hide that a method adds
    lesions.

    Args:
        predicted: f_pre(x̂_h), lesion found in the pseudo-healthy images, bool or 0 and 1, shape (B, 1, H, W).
        lesion: m_p, annotated lesion of the pathological images, bool or 0 and 1, same shape.

    Returns:
        Healthiness, at most 1; `nan` if no lesion is annotated at all.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> import torch
        >>> lesion = torch.tensor([[[[1, 1, 1, 1, 0, 0]]]])
        >>> found = torch.tensor([[[[1, 0, 0, 0, 0, 0]]]])
        >>> healthiness(found, lesion)
        0.75
    """
    if predicted.shape != lesion.shape:
        raise ValueError(
            f"predicted and lesion must have the same shape, got {tuple(predicted.shape)} and {tuple(lesion.shape)}"
        )
    return healthiness_of_counts(int(torch.count_nonzero(predicted)), int(torch.count_nonzero(lesion)))


def healthiness_of_counts(predicted_pixels: int, lesion_pixels: int) -> float:
    """Healthiness where the pixels have been counted already, so that a cohort's masks need not be kept.

    Args:
        predicted_pixels: Σ N(f_pre(x̂_h)).
        lesion_pixels: Σ N(m_p) over the same slices.

    Returns:
        Healthiness, at most 1; `nan` if no lesion is annotated at all.

    Example:
        >>> healthiness_of_counts(1, 4)
        0.75
    """
    return 1 - predicted_pixels / lesion_pixels if lesion_pixels else float("nan")


def healthiness_per_volume(predicted: Tensor, lesion: Tensor, volume: Sequence[str]) -> dict[str, float]:
    """Healthiness of each volume, pooled over its slices.

    Args:
        predicted: lesion found in the pseudo-healthy slices, bool or 0 and 1, shape (B, 1, H, W).
        lesion: annotated lesion of the pathological slices, bool or 0 and 1, same shape.
        volume: name of the volume that each slice belongs to, B of them, in any order.

    Returns:
        Healthiness by volume, in the order in which volumes first appear; `nan` where no lesion is annotated.

    Raises:
        ValueError: if the shapes differ, or if there is not one name for each slice.
    """
    if len(volume) != len(predicted):
        raise ValueError(f"volume must name each slice, got {len(volume)} names for {len(predicted)} slices")
    slices: dict[str, list[int]] = {}
    for position, name in enumerate(volume):
        slices.setdefault(name, []).append(position)
    return {name: healthiness(predicted[rows], lesion[rows]) for name, rows in slices.items()}
