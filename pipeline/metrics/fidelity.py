"""Fidelity: how little a synthetic image differs from its reference, as PSNR and SSIM.

GVS (Section V.D) reports both on normal tissue and defines no mask. Normal tissue is taken here as the
foreground outside the lesion, `foreground * (1 - lesion)`; without a mask the whole image counts.
"""

import math

import torch
from torch import Tensor

WINDOW = 11
SIGMA = 1.5
K1, K2 = 0.01, 0.03


def psnr(image: Tensor, reference: Tensor, mask: Tensor | None = None, data_range: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio over the pixels of a mask, 10 log10(data_range² / MSE).

    Args:
        image: image to judge, shape (B, C, H, W).
        reference: image to compare it with, same shape.
        mask: pixels that count, bool or 0 and 1, broadcastable to the image; all of them if not given.
        data_range: span of the intensities, 1.0 for images in [0, 1].

    Returns:
        PSNR in dB, one value per sample, shape (B,): `inf` for identical pixels, `nan` for an empty mask.

    Raises:
        ValueError: if the shapes of image and reference differ.

    Example:
        >>> import torch
        >>> psnr(torch.full((1, 1, 4, 4), 0.6), torch.full((1, 1, 4, 4), 0.5))
        tensor([20.0000])
    """
    _require_same_shape(image, reference)
    squared_error = (image.float() - reference.float()) ** 2
    return 10 * torch.log10(data_range**2 / _mean_over(mask, squared_error))


def ssim(
    image: Tensor,
    reference: Tensor,
    mask: Tensor | None = None,
    data_range: float = 1.0,
    surroundings: bool = False,
) -> Tensor:
    """Structural similarity: the mean of `ssim_map` over the pixels of a mask, whose windows see these pixels only.

    Windows reach 5 pixels beyond their centre. If they saw what lies there, the "normal tissue SSIM" of a method that
    puts the true tissue into the lesion and leaves all else bit-identical would be below that of one that leaves the
    lesion in and adds noise everywhere. Leaving out a margin of a window's radius instead would also leave out the
    tissue that fills damage most, a ring of 5 pixels around each lesion.

    Args:
        image: image to judge, shape (B, C, H, W).
        reference: image to compare it with, same shape.
        mask: pixels that count, bool or 0 and 1, broadcastable to the image; all of them if not given.
        data_range: span of the intensities, 1.0 for images in [0, 1].
        surroundings: let windows see beyond the mask all the same: how what is inside fits to what is around.

    Returns:
        SSIM in [-1, 1], one value per sample, shape (B,): 1 for identical images, `nan` for an empty mask.

    Raises:
        ValueError: if the shapes of image and reference differ.
    """
    return _mean_over(mask, ssim_map(image, reference, data_range, mask=None if surroundings else mask))


def ssim_map(
    image: Tensor,
    reference: Tensor,
    data_range: float = 1.0,
    window: int = WINDOW,
    sigma: float = SIGMA,
    mask: Tensor | None = None,
) -> Tensor:
    """Structural similarity around each pixel (Wang et al. 2004, Eq. 13, K1 = 0.01, K2 = 0.03).

    The map has the size of the image: beyond the border the image is mirrored with its outermost pixel
    repeated (d c b a | a b c d), as scikit-image does.

    Args:
        image: image to judge, shape (B, C, H, W); each channel is compared by itself.
        reference: image to compare it with, same shape.
        data_range: span of the intensities, 1.0 for images in [0, 1].
        window: width of the Gaussian window in pixels, odd.
        sigma: standard deviation of the Gaussian window in pixels.
        mask: the pixels that windows see, bool or 0 and 1, broadcastable to the image; all of them if not given. Means
            and variances of a window are then normalised by the window's weight inside the mask (normalised
            convolution, Knutsson and Westin 1993). Where the mask is not set, values mean nothing.

    Returns:
        SSIM of each pixel in [-1, 1], shape (B, C, H, W), float32.

    Raises:
        ValueError: if the shapes of image and reference differ.
    """
    margin = window // 2
    seen = None if mask is None else _mirrored(mask.to(image.device).float().expand_as(image), margin)
    x, y = (_mirrored(tensor, margin) for tensor in (image, reference))
    return ssim_and_contrast(x, y, data_range, window, sigma, seen)[0]


def ssim_and_contrast(
    image: Tensor,
    reference: Tensor,
    data_range: float = 1.0,
    window: int = WINDOW,
    sigma: float = SIGMA,
    seen: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure factor in each window that lies whole inside the image.

    Args:
        image: image to judge, shape (B, C, H, W).
        reference: image to compare it with, same shape.
        data_range: span of the intensities.
        window: width of the Gaussian window in pixels, odd.
        sigma: standard deviation of the Gaussian window in pixels.
        seen: pixels that windows see, 0 or 1, shape of the image; all of them if not given.

    Returns:
        SSIM = luminance × contrast-structure and the contrast-structure factor alone, both in [-1, 1] and of
        shape (B, C, H − window + 1, W − window + 1), float32.

    Raises:
        ValueError: if the shapes of image and reference differ.
    """
    _require_same_shape(image, reference)
    x, y = image.float(), reference.float()
    C1, C2 = (K1 * data_range) ** 2, (K2 * data_range) ** 2
    weights = _gaussian(window, sigma)
    share = None
    if seen is not None:
        # The outermost corner of a window weighs 1e-6; a window that sees nothing is divided by something all the same.
        share = _windowed_mean(seen, weights).clamp_min(1e-9)
        x, y = x * seen, y * seen

    def mean(values: Tensor) -> Tensor:
        means = _windowed_mean(values, weights)
        return means if share is None else means / share

    mean_x, mean_y = mean(x), mean(y)
    product_of_means, squared_means = mean_x * mean_y, mean_x * mean_x + mean_y * mean_y
    covariance = mean(x * y) - product_of_means
    variances = mean(x * x + y * y) - squared_means

    contrast = (2 * covariance + C2) / (variances + C2)
    luminance = (2 * product_of_means + C1) / (squared_means + C1)
    return luminance * contrast, contrast


def _gaussian(window: int, sigma: float) -> list[float]:
    weights = [math.exp(-((i - window // 2) ** 2) / (2 * sigma**2)) for i in range(window)]
    return [weight / sum(weights) for weight in weights]


def _windowed_mean(image: Tensor, weights: list[float]) -> Tensor:
    # Sums of shifted images rather than a convolution: GPUs convolve float32 in TF32 by default, autocast in
    # half precision, and either drowns small variances in rounding error. On a CPU it is faster, too.
    for axis in (-1, -2):
        length = image.shape[axis] - len(weights) + 1
        total = weights[0] * image.narrow(axis, 0, length)
        for start, weight in enumerate(weights[1:], start=1):
            total.add_(image.narrow(axis, start, length), alpha=weight)
        image = total
    return image


def _mirrored(image: Tensor, margin: int) -> Tensor:
    for axis in (-1, -2):
        length = image.shape[axis]
        position = torch.arange(-margin, length + margin, device=image.device) % (2 * length)
        image = image.index_select(axis, torch.minimum(position, 2 * length - 1 - position))
    return image


def _mean_over(mask: Tensor | None, values: Tensor) -> Tensor:
    if mask is None:
        return values.mean(dim=(1, 2, 3))
    weights = mask.to(values).expand_as(values)
    return (weights * values).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3))


def _require_same_shape(image: Tensor, reference: Tensor) -> None:
    if image.shape != reference.shape:
        raise ValueError(
            f"image and reference must have the same shape, got {tuple(image.shape)} and {tuple(reference.shape)}"
        )
