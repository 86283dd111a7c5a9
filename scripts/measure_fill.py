"""A filler against the best controls, where the truth is known: holes planted in healthy tissue of a cohort.

    python scripts/measure_fill.py COHORT -b fill --shapes DATA/open_ms -o fill.md

COHORT is a preprocessed one; the scans of its validation patients are filled on their own pixels. Holes have the shapes
of lesions of the same patients and of the masks in `--shapes`, of patients that are in no training, and any size; each
scan gets some of each size that fits. Written are the table, with the gain over the better of the 3-D harmonic and the
biharmonic fill and a Wilcoxon test of it over patients, corrected by Holm for the number of sizes, and beside it each
hole's figures as CSV. `--scans '*T1w'` takes those scans alone, for example those of a contrast that the filler's
training left out; `--against RUN` fills the same holes by a filler whose training had it, and tests the difference.
"""

import argparse
import itertools
import math
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.bundles import find_bundle  # noqa: E402
from pipeline.comparison.significance import holm, wilcoxon_signed_rank  # noqa: E402
from pipeline.evaluation.volumes import read_slab  # noqa: E402
from pipeline.files import sha256  # noqa: E402
from pipeline.inference import load_predictor  # noqa: E402
from pipeline.metrics.lesion_size import SIZES  # noqa: E402
from pipeline.preprocessing.biharmonic import biharmonic_fill  # noqa: E402
from pipeline.preprocessing.cohort_format import Subject, read_cohort, read_mask  # noqa: E402
from pipeline.preprocessing.foreground import foreground  # noqa: E402
from pipeline.preprocessing.hole_slices import healthy_tissue  # noqa: E402
from pipeline.preprocessing.holes import LEAST_VOXELS, lesions, place_shape, scale_to  # noqa: E402
from pipeline.scans import read_nifti  # noqa: E402

SIZES_ML = (0.01, *(size.least_ml for size in SIZES[1:]), 150.0)
NAMES = ("below 0.1 ml", "0.1–1 ml", "1–10 ml", "10–50 ml", "above 50 ml")
CONTROLS = ("harmonic", "biharmonic")
SCALES = (0.5, 2.0)  # of a lesion's size in mm
TRIES = 60
Shape = tuple[NDArray[np.bool_], tuple[float, float, float]]


def shapes_of(cohort: Path, split: str, folder: Path | None) -> list[Shape]:
    """Lesions of a split's patients, and of the masks of patients that the cohort has no scans of."""
    content = read_cohort(cohort)
    known = {subject.source["mask"].sha256 for subject in content.subjects if "mask" in subject.source}
    # The sequences of a person share a mask.
    patients = {subject.patient: subject for subject in content.of(split)}
    found = [(read_mask(cohort, subject) > 0, subject.spacing_mm) for subject in patients.values()]
    for path in sorted(folder.rglob("*lesion.nii.gz")) if folder else []:
        if sha256(path) not in known:
            mask = read_nifti(path, constant_ok=True)
            found.append((mask.axial(mask.intensities()) > 0, mask.axial_spacing_mm))
    return [(piece, mm) for mask, mm in found for piece in lesions(mask, LEAST_VOXELS)]


def holes(
    allowed: NDArray[np.bool_], mm: tuple[float, float, float], shapes: list[Shape], each: int, rng: Any
) -> Iterator[tuple[int, NDArray[np.bool_]]]:
    """Some holes of each size that fits, and the number of the size."""
    for size, (low, high) in enumerate(itertools.pairwise(SIZES_ML)):
        placed = 0
        for _ in range(TRIES):
            wanted_ml = math.exp(rng.uniform(math.log(low), math.log(high)))
            shape, its_mm = shapes[rng.integers(len(shapes))]
            scale = scale_to(shape, its_mm, wanted_ml)
            if not SCALES[0] <= scale <= SCALES[1]:
                continue
            hole = place_shape(shape, its_mm, allowed, mm, rng, scales=(scale, scale))
            if hole is not None and low <= hole.sum() * np.prod(mm) / 1000 < high:
                placed += 1
                yield size, hole
            if placed == each:
                break


def measured(subject: Subject, cohort: Path, fillers: dict[str, Any], shapes: list[Shape], each: int) -> pd.DataFrame:
    """PSNR in each hole of a scan, in dB of the window's width."""
    windowed, mm = read_slab(cohort, subject)
    allowed = healthy_tissue(windowed[:, 0], read_mask(cohort, subject) > 0, foreground(windowed[:, 0]), mm)
    rows = []
    rng = np.random.default_rng(sum(map(ord, subject.subject)))
    for size, hole in holes(allowed, mm, shapes, each, rng) if allowed.any() else ():
        emptied = np.where(hole[:, None], np.float32(0), windowed)  # no filler sees what was there
        row = {
            "subject": subject.subject,
            "patient": subject.patient,
            "size": size,
            "ml": hole.sum() * np.prod(mm) / 1e3,
        }
        for name, filler in fillers.items():
            error = filler.fill(emptied, hole, mm)[hole] - windowed[:, 0][hole]
            row[name] = -10 * math.log10(max(float(np.mean(error**2)), 1e-10))
        rows.append(row)
    return pd.DataFrame(rows)


class Biharmonic:
    """The biharmonic fill of `evaluate` as a filler."""

    def fill(
        self, windowed: NDArray[np.float32], hole: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
    ) -> NDArray[np.float32]:
        """As `Filler.fill`."""
        del spacing_mm
        return biharmonic_fill(windowed[:, 0], hole)


def table(rows: pd.DataFrame, name: str) -> list[str]:
    """A line for each size: means over patients, gain over the better control and test."""
    lines = [
        f"| hole | holes | patients | harmonic, dB | biharmonic, dB | {name}, dB | gain, dB | p (Holm) |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    means = by_size(rows)
    best = {size: each[[*CONTROLS]].mean().idxmax() for size, each in means.items()}
    return lines + compared(rows, means, (*CONTROLS, "filled"), "filled", best)


def against(rows: pd.DataFrame, name: str, other: str) -> list[str]:
    """A line for each size: means over patients of two fillers, their difference and test."""
    lines = [
        f"| hole | holes | patients | {other}, dB | {name}, dB | difference, dB | p (Holm) |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    means = by_size(rows)
    return lines + compared(rows, means, ("other", "filled"), "filled", dict.fromkeys(means, "other"))


def by_size(rows: pd.DataFrame) -> dict[int, pd.DataFrame]:
    """The mean of each filler over each patient's holes, by the number of the size."""
    sizes = [size for size in range(len(NAMES)) if (rows["size"] == size).any()]
    return {size: rows[rows["size"] == size].groupby("patient").mean(numeric_only=True) for size in sizes}


def compared(
    rows: pd.DataFrame, means: dict[int, pd.DataFrame], shown: tuple[str, ...], one: str, others: dict[int, str]
) -> list[str]:
    """Lines of a table: by size, what is shown, how much `one` is ahead of another, and the test of that."""
    lines = []
    tests = {size: wilcoxon_signed_rank(each[one], each[others[size]]) for size, each in means.items()}
    for size, p in zip(means, holm([tests[size].p for size in means]), strict=True):
        each, gain = means[size], means[size][one] - means[size][others[size]]
        values = [f"{each[name].mean():.2f} ± {each[name].std():.2f}" for name in shown]
        count = int((rows["size"] == size).sum())
        cells = [NAMES[size], str(count), str(len(each)), *values, f"{gain.mean():+.2f}", f"{p:.2g}"]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def parser_of(description: str | None, each: int) -> argparse.ArgumentParser:
    """What all scripts that plant holes of known truth ask for; `each` is how many of each size by default."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("-b", "--bundle", default="fill", help="bundle or run")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--shapes", type=Path, help="folder with further lesion masks, *lesion.nii.gz")
    parser.add_argument("--each", type=int, default=each, help="holes of each size in each scan")
    parser.add_argument("-o", "--output", type=Path, required=True, help="Markdown")
    return parser


def main() -> None:
    """Read the command line."""
    parser = parser_of(__doc__, each=3)
    parser.add_argument("--scans", default="*", help="pattern of the names of scans")
    parser.add_argument("--against", metavar="RUN", help="a further filler, for the same holes")
    given = parser.parse_args()
    bundle = find_bundle(given.bundle)
    fillers = {
        "harmonic": load_predictor(find_bundle("harmonic"), "filler", "cpu")[0],
        "biharmonic": Biharmonic(),
        "filled": load_predictor(bundle, "filler", "cpu")[0],
    }
    if given.against:
        fillers["other"] = load_predictor(find_bundle(given.against), "filler", "cpu")[0]
    shapes = shapes_of(given.cohort, given.split, given.shapes)
    parts = []
    for subject in read_cohort(given.cohort).of(given.split):
        if not fnmatch(subject.subject, given.scans):
            continue
        parts.append(measured(subject, given.cohort, fillers, shapes, given.each))
        print(subject.subject, len(parts[-1]), "holes", flush=True)
    rows = pd.concat(parts, ignore_index=True)
    rows.to_csv(given.output.with_suffix(".csv"), index=False)
    lines = table(rows, bundle.name)
    if given.against:
        lines += ["", *against(rows, Path(given.bundle).name, Path(given.against).name)]
    given.output.write_text("\n".join(lines) + "\n")
    print(given.output.read_text())


if __name__ == "__main__":
    main()
