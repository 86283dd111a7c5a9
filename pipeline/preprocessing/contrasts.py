"""The same anatomy as another scanner or sequence might show it: for networks that are to serve any contrast."""

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch.nn import functional

from pipeline.preprocessing.foreground import AIR

KNOTS = 7  # of the curve from intensity to intensity
LEAST = 1.5 * AIR  # of tissue afterwards, so that it stays brighter than air
INVERTED, CURVED, BIASED, BLURRED, NOISY = 0.4, 0.7, 0.5, 0.3, 0.3  # how often
BIAS = 0.15  # deviation of the field's logarithm
BLUR_PIXELS, NOISE = 0.8, 0.03  # at most


def other_contrast(
    volume: NDArray[np.float32], tissue: NDArray[np.bool_], rng: np.random.Generator, inverted: float = INVERTED
) -> NDArray[np.float32]:
    """A volume with random contrast: intensities mapped by a curve that rises or falls, bias field, blur and noise.

    Args:
        volume: in [0, 1], shape (slices, right, anterior).
        tissue: head or body, same shape; all else becomes 0.
        rng: of every choice.
        inverted: how often the curve falls.

    Returns:
        In [0, 1], same shape; tissue is brighter than air.
    """
    made = volume
    if rng.random() < CURVED:
        steps = rng.exponential(size=KNOTS - 1) + 0.1
        curve = np.concatenate([[0], np.cumsum(steps)]) / steps.sum()
        made = np.interp(made, np.linspace(0, 1, KNOTS), curve).astype(np.float32)
    if rng.random() < inverted:
        made = 1 - made
    if rng.random() < BIASED:
        made = made * _bias_field(made.shape, rng)
    if rng.random() < BLURRED:
        width = rng.uniform(0, BLUR_PIXELS)
        made = ndimage.gaussian_filter(made, (0, width, width))
    if rng.random() < NOISY:
        made = made + rng.uniform(0, NOISE) * rng.standard_normal(made.shape, dtype=np.float32)
    return np.where(tissue, np.clip(made, LEAST, 1), np.float32(0))


def _bias_field(shape: tuple[int, ...], rng: np.random.Generator) -> NDArray[np.float32]:
    coarse = torch.from_numpy(rng.normal(0, BIAS, (1, 1, 3, 4, 4)).astype(np.float32))
    field = functional.interpolate(coarse, size=shape, mode="trilinear", align_corners=True)
    values: NDArray[np.float32] = field[0, 0].exp().numpy()
    return values
