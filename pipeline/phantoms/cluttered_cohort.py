"""A cohort of cluttered digits on disk: pictures as slices of volumes in BIDS, masks as their derivative."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.errors import UsageError
from pipeline.files import write_json
from pipeline.mosaic import grey, mosaic, save_png
from pipeline.phantoms.cluttered import VARIANTS, Digits, Pictures, absence, presence
from pipeline.phantoms.dataset import refuse_other_content, write_descriptions, write_participants, write_volume
from pipeline.preprocessing.cohort import SHARES
from pipeline.preprocessing.splits import SPLITS

NAME = "Cluttered digits"
README = """\
Cluttered digits (GenSeg, Section 4.1): pictures of a whole digit among crops of others, and of crops alone.

sub-*/anat                   volumes whose slices are pictures: first those with a digit, then as many without
derivatives/manual           masks of the digits (1 digit, 0 elsewhere)
participants.tsv             the split of a volume, and which digit it shows
examples.png                 pictures with a digit, their masks, and unrelated pictures without

Made by `phs-pipeline phantom --kind cluttered-mnist`. Clutter is cut from digits of the same split. A volume is no
person, and its geometry is nominal. Prepare it with

    phs-pipeline preprocess FOLDER -o COHORT --modality image --whole --window 0 255 --target digit
"""
PLAIN_README = """\
Handwritten digits as they are

sub-*/anat                   volumes whose slices are pictures of one digit
participants.tsv             the split of a volume, and which digit it shows
examples.png                 some of them

Made by `phs-pipeline phantom --kind cluttered-mnist --variant plain`. A volume is no person, and its geometry is
nominal. There are no masks: a digit is all that a picture holds. Prepare it with

    phs-pipeline preprocess FOLDER -o COHORT --modality image --whole --window 0 255 --target digit --healthy
"""
SUFFIX = "image"
PICTURES = 50  # with a digit in a volume, and as many without
EXAMPLES = 6


def write_cluttered_cohort(
    directory: Path,
    digits: Digits,
    variant: str,
    seed: int,
    count: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Write as many pictures with a digit as there are digits, and as many without, as a BIDS dataset.

    Of the variant without clutter there are none without a digit, and no masks.

    Digits are split by chance into training, validation and test, as large as `preprocess` makes them by default. Each
    volume shows one of the ten; it depends on the arguments and its own name. Complete volumes are left alone.

    Args:
        directory: a new or empty folder, or one that holds the cohort of the same arguments.
        digits: handwritten digits.
        variant: a key of `VARIANTS`.
        seed: of the cohort, at least 0.
        count: digits to use, at most; None takes all.
        progress: called with (volumes done, volumes in all).

    Returns:
        The labels of the volumes, such as `sub-trainingD9V00`.

    Raises:
        UsageError: if a split would have no digit, or `directory` holds something else.
    """
    order = np.random.default_rng([seed, len(digits.labels)]).permutation(len(digits.labels))[:count]
    made_by = {
        "Seed": seed,
        "Kind": "cluttered-mnist",
        "Variant": variant,
        "Digits": hashlib.sha256(digits.images[order].tobytes() + digits.labels[order].tobytes()).hexdigest(),
    }
    refuse_other_content(directory, made_by)
    ends = np.round(np.cumsum((0, *SHARES)) * len(order)).astype(int)
    folds = {split: order[first:end] for split, first, end in zip(SPLITS, ends[:-1], ends[1:], strict=True)}
    if any(len(fold) == 0 for fold in folds.values()):
        raise UsageError(
            f"{directory}: {len(order)} digits leave a split without any, expected some in each of "
            f"{', '.join(SPLITS)}; take more digits (--subjects)"
        )
    plain = VARIANTS[variant].pieces == 0
    readme, masks = (PLAIN_README, {}) if plain else (README, {"manual": "masks of the digits"})
    write_descriptions(directory, "Digits" if plain else NAME, made_by, readme, masks, licence="that of the digits")
    volumes = {
        f"sub-{split}D{digit}V{number:02d}": (split, digit, shown[number * PICTURES :][:PICTURES])
        for split, fold in folds.items()
        for digit in range(10)
        if len(shown := fold[digits.labels[fold] == digit])
        for number in range(-(-len(shown) // PICTURES))
    }
    training = folds["training"]
    save_png(directory / "examples.png", _examples(*_draw(digits, training[:EXAMPLES], training, variant, [seed])))
    for done, (label, (split, _, shown)) in enumerate(volumes.items(), start=1):
        if not (directory / _names(label)[1]).is_file():
            _write(directory, label, *_draw(digits, shown, folds[split], variant, [seed, *label.encode()]))
        if progress is not None:
            progress(done, len(volumes))
    write_participants(
        directory, {label: {"split": split, "digit": f"{n}"} for label, (split, n, _) in volumes.items()}
    )
    return list(volumes)


def _draw(
    digits: Digits, shown: NDArray[np.int64], fold: NDArray[np.int64], variant: str, seed: list[int]
) -> tuple[Pictures, Pictures | None]:
    """Pictures and masks, shape (2N, side, side): those with a digit, then those without; or N digits without masks."""
    if VARIANTS[variant].pieces == 0:
        return digits.images[shown], None
    rng, others = np.random.default_rng(seed), digits.images[fold]
    present = [presence(rng, digits.images[index], others, VARIANTS[variant]) for index in shown]
    absent = [absence(rng, others, VARIANTS[variant]) for _ in shown]
    pictures = np.stack([*(picture for picture, _ in present), *absent])
    masks = np.stack([*(mask for _, mask in present), *np.zeros_like(absent)])
    return pictures, masks


def _names(label: str) -> tuple[str, str]:
    return (
        f"derivatives/manual/{label}/anat/{label}_label-lesion_mask.nii.gz",
        f"{label}/anat/{label}_{SUFFIX}.nii.gz",
    )


def _write(directory: Path, label: str, pictures: Pictures, masks: Pictures | None) -> None:
    mask, image = (directory / name for name in _names(label))
    source = f"bids:raw:{_names(label)[1]}"
    of_mask = {"Description": "Digits", "Sources": [source], "SpatialReference": source, "Type": "Lesion"}
    # The image last: a volume that is there is complete.
    for path, slices, sidecar in (
        (mask, masks, of_mask),
        (image, pictures, {"SeriesDescription": "SYNTHETIC pictures of digits"}),
    ):
        if slices is None:
            continue
        write_json(path.with_name(path.name.replace(".nii.gz", ".json")), sidecar)
        write_volume(path, _upside(slices).transpose(1, 2, 0), np.eye(4))


def _upside(slices: Pictures) -> Pictures:
    """Pictures (N, rows, columns) as axial slices (N, right, anterior) that are seen upright by a radiologist."""
    turned: Pictures = slices[:, ::-1, ::-1].transpose(0, 2, 1)
    return turned


def _examples(pictures: Pictures, masks: Pictures | None) -> Image.Image:
    """GenSeg's Fig. 6: presence, masks, and unrelated absence; or digits alone."""
    if masks is None:
        return mosaic(["digits", *[""] * (len(pictures) - 1)], [[grey(each / 255) for each in _upside(pictures)]])
    columns = len(pictures) // 2
    rows = (pictures[:columns], 255 * masks[:columns], pictures[columns:])
    titles = ["presence, mask, absence", *[""] * (columns - 1)]
    return mosaic(titles, [[grey(each / 255) for each in _upside(row)] for row in rows])
