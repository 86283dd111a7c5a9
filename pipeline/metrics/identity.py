"""Identity: does the synthetic image still show the same person outside the lesion?"""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.metrics.fidelity import WINDOW, ssim_and_contrast

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
SHORTEST_SIDE = WINDOW * 2 ** (len(WEIGHTS) - 1)


def identity(image: Tensor, reference: Tensor, lesion: Tensor, data_range: float = 1.0) -> Tensor:
    """Masked multi-scale SSIM, MS-SSIM[(1 − m) ⊙ x̂_h, (1 − m) ⊙ x_p] (PHS-GAN, Section 4.2).

    Five scales with the weights of Wang, Simoncelli and Bovik 2003, Gaussian windows 11 pixels wide that lie
    whole inside the image, 2×2 means between scales. A scale whose mean is negative counts as 0 (a fractional
    power of a negative number is undefined), so the result is then 0.

    Images below 176 pixels are padded with background as `ms_ssim_padding` says. Lesion, background and
    padding are zero in both images and agree for free, so report SSIM over normal tissue beside this number.

    Args:
        image: pseudo-healthy image x̂_h, shape (B, C, H, W), background 0.
        reference: pathological image x_p that it was made from, same shape.
        lesion: lesion mask m, bool or 0 and 1, broadcastable to the image.
        data_range: span of the intensities, 1.0 for images in [0, 1].

    Returns:
        Identity in [0, 1], one value per sample, shape (B,): 1 if nothing changed outside the lesion.

    Raises:
        ValueError: if the shapes of image and reference differ.
    """
    rows, columns = ms_ssim_padding(*image.shape[-2:])
    sides = (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2)
    outside = 1 - lesion.float()
    x, y = F.pad(outside * image, sides), F.pad(outside * reference, sides)

    similarity = torch.ones(len(x), device=x.device)
    for scale, weight in enumerate(WEIGHTS, start=1):
        ssim, contrast = ssim_and_contrast(x, y, data_range)
        factor = ssim if scale == len(WEIGHTS) else contrast
        similarity = similarity * factor.mean(dim=(1, 2, 3)).clamp(min=0) ** weight
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return similarity


def ms_ssim_padding(height: int, width: int) -> tuple[int, int]:
    """Rows and columns of background that `identity` adds to an image; a report states them where not (0, 0).

    At the fifth scale, 1/16 of the size, a window of 11 pixels must still fit: both sides need 11 × 16 = 176
    pixels. What is missing is added half before and half after the image, the odd one after.

    Args:
        height: rows of the image, in pixels.
        width: columns of the image, in pixels.

    Returns:
        Rows and columns added in total.

    Example:
        >>> ms_ssim_padding(208, 160)
        (0, 16)
    """
    return max(0, SHORTEST_SIDE - height), max(0, SHORTEST_SIDE - width)
