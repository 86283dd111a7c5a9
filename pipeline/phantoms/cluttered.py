"""Cluttered MNIST (GenSeg, Section 4.1): a whole digit among pieces of others, and pictures of such pieces alone."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import zoom

from pipeline.errors import UsageError, first_line
from pipeline.files import require_small_archive

Pictures = NDArray[np.uint8]

# Of a file of digits; MNIST's 70,000 have 55 MB.
MOST_BYTES = 1 << 30
SIDE = 28
INK_SIDE = 20  # MNIST's digits fill 20 of 28 pixels
CROP = 10
HALF = 127


@dataclass(frozen=True)
class Variant:
    """One of the paper's three tasks, or digits without clutter.

    Args:
        side: pixels of a picture.
        pieces: of clutter in it.
    """

    side: int
    pieces: int


VARIANTS = {"48-simple": Variant(48, 8), "48-hard": Variant(48, 24), "128": Variant(128, 80), "plain": Variant(SIDE, 0)}


@dataclass(frozen=True)
class Digits:
    """Handwritten digits.

    Args:
        images: shape (N, 28, 28), bright ink on black.
        labels: shape (N,), 0 to 9.
    """

    images: Pictures
    labels: NDArray[np.int64]


def read_digits(file: Path) -> Digits:
    """The digits of an `.npz` file with `images` (N, 28, 28) of uint8 and `labels` (N,), 0 to 9.

    Raises:
        UsageError: if it holds something else.
    """
    try:
        require_small_archive(file, MOST_BYTES)
        with np.load(file, allow_pickle=False) as content:
            images, labels = content["images"], content["labels"]
    except Exception as error:  # numpy and zipfile raise whatever their parsers stumble over
        raise UsageError(
            f"{file}: cannot be read as digits ({first_line(error)}), expected an .npz file with images (N, 28, 28) "
            "and labels (N,); leave --digits out to use those of scikit-learn"
        ) from error
    shaped = images.ndim == 3 and images.shape[1:] == (SIDE, SIDE) and labels.shape == images.shape[:1]
    if not shaped or images.dtype != np.uint8 or not np.isin(labels, range(10)).all():
        raise UsageError(
            f"{file}: holds images {images.shape} of {images.dtype} and labels {labels.shape}, expected uint8 images "
            f"(N, {SIDE}, {SIDE}) and as many labels from 0 to 9; save MNIST so"
        )
    return Digits(images, labels.astype(np.int64))


def scikit_digits() -> Digits:
    """The 1,797 handwritten digits of scikit-learn, 8×8, enlarged to what MNIST's fill of 28×28 pixels."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = np.zeros((len(found.images), SIDE, SIDE), np.uint8)
    inside = slice((SIDE - INK_SIDE) // 2, (SIDE + INK_SIDE) // 2)
    scale = INK_SIDE / found.images.shape[1]
    enlarged = zoom(found.images * (255 / 16), (1, scale, scale), order=3)
    # Twice the contrast around half, for edges as sharp as those of MNIST.
    images[:, inside, inside] = np.clip(2 * enlarged - HALF, 0, 255).round()
    return Digits(images, found.target.astype(np.int64))


def presence(
    rng: np.random.Generator, digit: Pictures, others: Pictures, variant: Variant
) -> tuple[Pictures, Pictures]:
    """A picture with a whole digit, and the mask of it.

    Args:
        rng: of places, pieces and dithering.
        digit: shape (28, 28).
        others: digits that clutter is cut from, shape (N, 28, 28).
        variant: size and number of pieces.

    Returns:
        The picture, shape (side, side), the clutter lying over the digit; and the mask in {0, 1}: where the digit is
        brighter than half, whatever lies over it.
    """
    picture, alone = (np.zeros((variant.side, variant.side), np.uint8) for _ in range(2))
    place = _place(rng, variant.side, SIDE)
    picture[place] = alone[place] = digit
    _clutter(rng, picture, others, variant.pieces)
    return picture, (alone > HALF).astype(np.uint8)


def absence(rng: np.random.Generator, others: Pictures, variant: Variant) -> Pictures:
    """A picture of clutter alone, shape (side, side); arguments as of `presence`."""
    picture = np.zeros((variant.side, variant.side), np.uint8)
    _clutter(rng, picture, others, variant.pieces)
    return picture


def _clutter(rng: np.random.Generator, picture: Pictures, others: Pictures, pieces: int) -> None:
    for _ in range(pieces):
        over, piece = picture[_place(rng, len(picture), CROP)], _piece(rng, others)
        # Where ink meets ink, each pixel is taken from one or the other: no border tells which lies above.
        dithered = (over == 0) | (rng.random(over.shape) < 0.5)
        over[(piece > 0) & dithered] = piece[(piece > 0) & dithered]


def _piece(rng: np.random.Generator, others: Pictures) -> Pictures:
    """A crop of a digit that has ink in it."""
    while True:
        crop: Pictures = others[rng.integers(len(others))][_place(rng, SIDE, CROP)]
        if (crop > HALF).any():
            return crop


def _place(rng: np.random.Generator, side: int, extent: int) -> tuple[slice, slice]:
    top, left = rng.integers(side - extent + 1, size=2)
    return slice(top, top + extent), slice(left, left + extent)
