"""What a filler makes of masks that were drawn tight or loosely, and of several contrasts, where the truth is known.

    python scripts/measure_fill_masks.py COHORT -b fill --shapes DATA/open_ms -o masks.md

Lesions are planted into healthy tissue of a cohort's validation patients, as `scripts/measure_fill.py` places holes,
and look as those of `pipeline.phantoms`. The mask that is filled is the lesion's, one pixel smaller or one larger in
each slice, grown by some millimetres; the table has the PSNR inside the true lesion, in dB of the window, mean over
patients.

Where a patient has two contrasts, both are filled in the same lesion, and once each with a mask of its own: as drawn
in the one, one pixel larger in the other. How much two images have the same edges is Σ |∇a · ∇b| / Σ |∇a| |∇b| over
the true lesion: 1 where all edges run the same way, 0.5 where they have nothing to do with each other.
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.bundles import find_bundle  # noqa: E402
from pipeline.evaluation.volumes import read_slab  # noqa: E402
from pipeline.files import write_text  # noqa: E402
from pipeline.inference import load_predictor  # noqa: E402
from pipeline.inference.mask_check import grown  # noqa: E402
from pipeline.phantoms.appearance import APPEARANCES, Spacing, Tissue, paint  # noqa: E402
from pipeline.preprocessing.cohort_format import Subject, read_cohort, read_mask  # noqa: E402
from pipeline.preprocessing.foreground import foreground  # noqa: E402
from pipeline.preprocessing.hole_slices import healthy_tissue  # noqa: E402
from scripts.measure_fill import NAMES, Shape, holes, parser_of, shapes_of  # noqa: E402

GROW_MM = (0.0, 1.0, 2.0, 3.0)
IN_SLICE = np.array([[[0, 1, 0], [1, 1, 1], [0, 1, 0]]], dtype=bool)
SIZES = (1, 2, 3)  # of `measure_fill`'s: in the smallest a pixel is all, in the largest the border is little
Volume = NDArray[np.float32]
Region = NDArray[np.bool_]


def drawings(lesion: Region, head: Region) -> dict[str, Region]:
    """A lesion's mask drawn tight, exactly, and loosely."""
    return {
        "tight": ndimage.binary_erosion(lesion, IN_SLICE),
        "exact": lesion,
        "loose": ndimage.binary_dilation(lesion, IN_SLICE) & head,
    }


def of_masks(
    truth: Volume, lesion: Region, head: Region, mm: Spacing, filler: Any, rng: Any
) -> Iterator[tuple[str, float, float]]:
    """How the mask was drawn, by how much it was grown, and the PSNR in the lesion."""
    tissue = Tissue.of(truth, head & ~lesion)
    painted = paint(truth, lesion, str(rng.choice(list(APPEARANCES))), tissue, mm, rng).clip(0, 1)
    for name, drawn in drawings(lesion, head).items():
        for grow_mm in GROW_MM if drawn.any() else ():
            filled = filler.fill(painted[:, None], grown(drawn, head, mm, grow_mm) if grow_mm else drawn, mm)
            error = float(np.mean((filled - truth)[lesion] ** 2))
            yield name, grow_mm, -10 * np.log10(max(error, 1e-10))


def same_edges(first: Volume, second: Volume, lesion: Region, mm: Spacing) -> float:
    """How much two images have the same edges in a lesion, from 0 to 1."""
    slopes = [np.stack(np.gradient(image, *mm))[:, lesion] for image in (first, second)]
    lengths = [np.linalg.norm(slope, axis=0) for slope in slopes]
    return float(np.abs((slopes[0] * slopes[1]).sum(axis=0)).sum() / max((lengths[0] * lengths[1]).sum(), 1e-12))


def of_contrasts(
    pair: tuple[Volume, Volume], lesion: Region, head: Region, mm: Spacing, filler: Any
) -> dict[str, float]:
    """Agreement of the edges of two contrasts: of the truth, of fills in one mask, and of fills in two."""
    masks = drawings(lesion, head)

    def filled(image: Volume, mask: Region) -> Volume:
        made: Volume = filler.fill(np.where(mask, np.float32(0), image)[:, None], mask, mm)
        return made

    ours, other = (filled(image, lesion) for image in pair)
    return {
        "truth": same_edges(*pair, lesion, mm),
        "one mask": same_edges(ours, other, lesion, mm),
        "a mask each": same_edges(ours, filled(pair[1], masks["loose"]), lesion, mm),
    }


def patients(cohort: Path, split: str) -> list[list[Subject]]:
    """Each patient's scans on one grid, at most two."""
    subjects = sorted(read_cohort(cohort).of(split), key=lambda subject: subject.patient)
    return [list(group)[:2] for _, group in itertools.groupby(subjects, key=lambda subject: subject.patient)]


def measured(
    scans: list[Subject], cohort: Path, shapes: list[Shape], each: int, filler: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of both tables of a patient."""
    volumes = [read_slab(cohort, scan) for scan in scans]
    truth, mm = np.ascontiguousarray(volumes[0][0][:, 0]), volumes[0][1]
    head = foreground(truth)
    allowed = healthy_tissue(truth, read_mask(cohort, scans[0]) > 0, head, mm)
    rng = np.random.default_rng(sum(map(ord, scans[0].patient)))
    masks, contrasts = [], []
    for size, hole in holes(allowed, mm, shapes, each, rng) if allowed.any() else ():
        if size not in SIZES:
            continue
        about = {"patient": scans[0].patient, "size": size}
        for name, grow_mm, psnr in of_masks(truth, hole, head, mm, filler, rng):
            masks.append({**about, "drawn": name, "grow_mm": grow_mm, "psnr": psnr})
        if len(volumes) == 2 and volumes[1][0].shape == volumes[0][0].shape:
            pair = truth, np.ascontiguousarray(volumes[1][0][:, 0])
            contrasts.append({**about, **of_contrasts(pair, hole, head, mm, filler)})
    return masks, contrasts


def tables(masks: pd.DataFrame, contrasts: pd.DataFrame) -> list[str]:
    """Both as Markdown."""
    lines = [
        "| lesion | mask | " + " | ".join(f"{mm:g} mm" for mm in GROW_MM) + " |",
        "|---|---|" + "---:|" * len(GROW_MM),
    ]
    for size, drawn in itertools.product(SIZES, ("tight", "exact", "loose")):
        mine = masks[(masks["size"] == size) & (masks["drawn"] == drawn)]
        if len(mine):
            by = mine.groupby(["grow_mm", "patient"])["psnr"].mean().groupby("grow_mm").mean()
            lines.append(f"| {NAMES[size]} | {drawn} | " + " | ".join(f"{by[mm]:.2f}" for mm in GROW_MM) + " |")
    lines += ["", "| lesion | holes | truth | one mask | a mask each |", "|---|---:|---:|---:|---:|"]
    for size, mine in contrasts.groupby("size") if len(contrasts) else ():
        means = " | ".join(f"{mine[name].mean():.3f}" for name in ("truth", "one mask", "a mask each"))
        lines.append(f"| {NAMES[int(size)]} | {len(mine)} | {means} |")
    return lines


def main() -> None:
    """Read the command line."""
    given = parser_of(__doc__, each=2).parse_args()
    filler = load_predictor(find_bundle(given.bundle), "filler", "cpu")[0]
    shapes = shapes_of(given.cohort, given.split, given.shapes)
    masks: list[dict[str, Any]] = []
    contrasts: list[dict[str, Any]] = []
    for scans in patients(given.cohort, given.split):
        more = measured(scans, given.cohort, shapes, given.each, filler)
        masks += more[0]
        contrasts += more[1]
        print(scans[0].patient, len(masks), "fills", flush=True)
        write_text(given.output, "\n".join(tables(pd.DataFrame(masks), pd.DataFrame(contrasts))) + "\n")
    print(given.output.read_text())


if __name__ == "__main__":
    main()
