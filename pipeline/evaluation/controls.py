"""Controls: what a method's numbers are worth is seen beside those of doing nothing, and of doing something trivial.

Each control of a translator takes the pathological image (N, 1, H, W) in [0, 1], its lesion mask and its foreground
(bool, same shape), and returns the image that it would hand in as pseudo-healthy. Those of a segmenter make a lesion
mask from a volume's intensities alone, that of a scorer gives every scan the same number, and those of a translator
between modalities map intensities without knowing where they are.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse.linalg import spsolve
from torch import Tensor

from pipeline.evaluation.volumes import Volume
from pipeline.preprocessing.symmetry import mid_sagittal_line

NEIGHBOURS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def untouched(x: Tensor, mask: Tensor, foreground: Tensor) -> Tensor:
    """The pathological image itself: perfect identity, and the healthiness that a method must beat."""
    del mask, foreground
    return x


def mean_filled(x: Tensor, mask: Tensor, foreground: Tensor) -> Tensor:
    """The lesion filled with the mean of the slice's normal tissue (foreground outside the lesion).

    It hides most lesions from a segmentor and is anatomically empty: healthiness alone does not tell it from a good
    method.
    """
    normal = foreground & ~mask
    count = normal.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    mean = (x * normal).sum(dim=(2, 3), keepdim=True) / count
    return torch.where(mask, mean, x)


def harmonic(x: Tensor, mask: Tensor, foreground: Tensor) -> Tensor:
    """The lesion filled with the solution of Laplace's equation that continues the normal tissue around it.

    The smoothest fill without a seam: each lesion pixel is the mean of its four neighbours. Normal tissue is the
    boundary; air and the image's border are none (no flow across them), or a lesion at the brain's edge would turn
    black. A lesion that touches no normal tissue is filled as `mean_filled` does.
    """
    filled = mean_filled(x, mask, foreground)
    for image, lesion, tissue in zip(filled[:, 0], mask[:, 0], (foreground & ~mask)[:, 0], strict=True):
        inside, values = _laplace(image.cpu().numpy(), lesion.cpu().numpy(), tissue.cpu().numpy())
        image[torch.from_numpy(inside).to(x.device)] = torch.from_numpy(values).to(image)
    return filled


def mirrored(x: Tensor, mask: Tensor, foreground: Tensor) -> Tensor:
    """Each lesion pixel takes the value of its mirror pixel in the other hemisphere.

    The mid-sagittal line of each slice is the one about which its normal tissue is most symmetric: right and left lie
    along H; the line may lie anywhere and be tilted by up to 18°. It is found to half a pixel and about a degree,
    pixels taken as square. Where the mirror pixel is lesion or air itself, the fill is that of `mean_filled`.
    """
    filled = mean_filled(x, mask, foreground)
    height, width = x.shape[-2:]
    tilt, position = mid_sagittal_line(x * (foreground & ~mask), mask.to(x))
    n, _, h, w = torch.nonzero(mask, as_tuple=True)
    # Distance from the line, measured along its normal (cos, sin) in pixels from the image's centre.
    normal_h, normal_w = tilt[n].cos(), tilt[n].sin()
    distance = (h - (height - 1) / 2) * normal_h + (w - (width - 1) / 2) * normal_w - position[n]
    # Between two pixels the nearest counts, not their mean: it could mix lesion or air in, and has less noise.
    mirror_h = (h - 2 * distance * normal_h).round().long()
    mirror_w = (w - 2 * distance * normal_w).round().long()
    seen = (mirror_h >= 0) & (mirror_h < height) & (mirror_w >= 0) & (mirror_w < width)
    n, h, w, mirror_h, mirror_w = (index[seen] for index in (n, h, w, mirror_h, mirror_w))
    normal = (foreground & ~mask)[n, 0, mirror_h, mirror_w]
    filled[n, 0, h, w] = torch.where(normal, x[n, 0, mirror_h, mirror_w], filled[n, 0, h, w])
    return filled


def _laplace(
    image: NDArray[Any], lesion: NDArray[np.bool_], tissue: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Pixels of the lesions that touch tissue, and the harmonic values there, in the order of `image[pixels]`."""
    parts, _ = ndimage.label(lesion)
    touching = np.unique(parts[ndimage.binary_dilation(tissue)])
    inside = np.isin(parts, touching[touching > 0])
    # One pixel more on each side: beyond the image's border there is neither lesion nor tissue.
    unknown, known, values = np.pad(inside, 1), np.pad(tissue, 1), np.pad(image.astype(np.float64), 1)
    pixels = np.nonzero(unknown)
    count = len(pixels[0])
    number = np.zeros(unknown.shape, np.int64)
    number[pixels] = np.arange(count)

    degree, boundary = np.zeros(count), np.zeros(count)
    rows, columns = [], []
    for step_h, step_w in NEIGHBOURS:
        neighbour = (pixels[0] + step_h, pixels[1] + step_w)
        degree += unknown[neighbour] | known[neighbour]
        boundary += values[neighbour] * known[neighbour]
        rows.append(np.flatnonzero(unknown[neighbour]))
        columns.append(number[neighbour][rows[-1]])
    row, column = np.concatenate(rows), np.concatenate(columns)
    laplacian = sparse.diags_array(degree) - sparse.coo_array((np.ones(len(row)), (row, column)), (count, count))
    if not count:
        return inside, boundary
    solution = spsolve(laplacian.tocsc(), boundary, permc_spec="MMD_AT_PLUS_A")
    # The solution lies between its boundary values, but for rounding.
    return inside, np.clip(solution, 0, 1)


UNTOUCHED = "untouched input"
CONTROLS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    UNTOUCHED: untouched,
    "mean-filled lesion": mean_filled,
    "harmonic inpainting": harmonic,
    "mirrored hemisphere": mirrored,
}

SOURCE = "source as it is"
DEGRADED = "degraded as it is"
HISTOGRAM = "histogram matching"
INTENSITY = "intensity map"
THRESHOLD = "intensity threshold"
EMPTY = "empty mask"
MEAN = "training mean"
MAJORITY = "majority class"
LEVELS = 256  # intensities that a threshold is chosen from


def empty(volume: Volume) -> Tensor:
    """No lesion anywhere."""
    return torch.zeros_like(volume.lesion)


def fitted_threshold(volumes: Iterable[Volume]) -> Callable[[Volume], Tensor]:
    """The head's or body's pixels above, or below, one intensity: that of the best Dice, all pixels pooled.

    Args:
        volumes: of the training patients.
    """
    lesion, tissue = np.zeros(LEVELS), np.zeros(LEVELS)
    for volume in volumes:
        lesion += np.histogram(volume.image[volume.lesion & volume.foreground].numpy(), LEVELS, (0, 1))[0]
        tissue += np.histogram(volume.image[volume.foreground].numpy(), LEVELS, (0, 1))[0]
    taken, bright = best_cut(lesion, tissue)
    limit = 1 - taken / LEVELS if bright else taken / LEVELS

    def cut(volume: Volume) -> Tensor:
        return volume.foreground & (volume.image >= limit if bright else volume.image < limit)

    return cut


def best_cut(lesion: NDArray[Any], tissue: NDArray[Any]) -> tuple[int, bool]:
    """How many of the brightest levels, or of the darkest, have the best Dice if all their pixels are called lesion.

    Args:
        lesion: pixels of each level, the darkest first, that are lesion, shape (levels,).
        tissue: all pixels of each level.

    Returns:
        The number, at least 1, and whether it counts from the brightest.
    """
    dice = [2 * part.cumsum() / (whole.cumsum() + lesion.sum() + 1e-9) for part, whole in
            ((lesion[::-1], tissue[::-1]), (lesion, tissue))]  # fmt: skip
    bright = bool(dice[0].max() >= dice[1].max())
    return int(dice[0 if bright else 1].argmax()) + 1, bright


def fitted_guess(training: Sequence[float], classes: bool) -> tuple[str, float]:
    """The same number for every scan: the mean of the training targets, or the class that most of them have.

    Args:
        training: targets of the training scans, at least one.
        classes: whether they are the classes 0 and 1.

    Returns:
        Name of the control, and the number.
    """
    mean = float(np.mean(training))
    return (MAJORITY, float(mean >= 0.5)) if classes else (MEAN, mean)


Pairs = Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]


def fitted_histogram(pairs: Pairs) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The rising intensity map that gives the sources the histogram of the targets; pairs need not lie on each other.

    Args:
        pairs: foreground intensities in [0, 1] of source and target of training scans, any shape.

    Returns:
        From source intensities to target intensities, the same shape.
    """
    shares = [counts[:, 0].cumsum() / counts[:, 0].sum() for counts in _levels_of(pairs)]
    reached = np.searchsorted(shares[1], shares[0])
    return _map(reached.clip(0, LEVELS - 1) / (LEVELS - 1))


def fitted_intensities(pairs: Pairs) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    """The intensity map of the least squared error: the mean target of each source intensity.

    Arguments and result as of `fitted_histogram`; pairs must lie on each other.
    """
    sources, _ = _levels_of(pairs)
    count, total = sources[:, 0], sources[:, 1]
    known = np.flatnonzero(count)
    return _map(np.interp(np.arange(LEVELS), known, total[known] / count[known]))


def _levels_of(pairs: Pairs) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Of both sides' levels how many pixels have each, and the sum of the other side there, shape (LEVELS, 2)."""
    found = np.zeros((2, LEVELS, 2))
    for pair in pairs:
        for side, (own, other) in enumerate((pair, pair[::-1])):
            level = _level(own).ravel()
            found[side, :, 0] += np.bincount(level, minlength=LEVELS)
            found[side, :, 1] += np.bincount(level, other.ravel().astype(np.float64), minlength=LEVELS)
    return found[0], found[1]


def _level(image: NDArray[np.float32]) -> NDArray[np.intp]:
    return (image.clip(0, 1) * (LEVELS - 1)).round().astype(np.intp)


def _map(values: NDArray[np.float64]) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    def mapped(image: NDArray[np.float32]) -> NDArray[np.float32]:
        made: NDArray[np.float32] = values.astype(np.float32)[_level(image)]
        return made

    return mapped


# What a row of a table may be called that is no method.
NAMES = (*CONTROLS, SOURCE, DEGRADED, HISTOGRAM, INTENSITY, THRESHOLD, EMPTY, MEAN, MAJORITY)
