"""How far a filler is from the truth, by depth and size: the numbers behind `phs-pipeline fill --uncertainty`.

    python scripts/calibrate_fill.py COHORT -b fill --shapes DATA/open_ms -o fill_error.md --write

Holes as `scripts/measure_fill.py` plants them are filled as the bundle does it. Of each hole some voxels are kept:
their error, in deviations of the tissue around the hole, their depth and their place. The table is fitted so that 90 %
intervals hold the truth in 90 % of the voxels, each hole counting as much as another of its size, and the correlation
of errors by distance. It is checked on patients that it did not see: fitted on half of them, measured on the other
half, and the other way round. What is stored with `--write` in the bundle's inference config is fitted on all.
"""

import itertools
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import nnls

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.bundles import find_bundle  # noqa: E402
from pipeline.evaluation.volumes import read_slab  # noqa: E402
from pipeline.files import write_text  # noqa: E402
from pipeline.inference import FillError, load_predictor  # noqa: E402
from pipeline.inference.fill_error import INTERVAL, Place, Z, place_in  # noqa: E402
from pipeline.preprocessing.cohort_format import Subject, read_cohort, read_mask  # noqa: E402
from pipeline.preprocessing.foreground import foreground  # noqa: E402
from pipeline.preprocessing.hole_slices import healthy_tissue  # noqa: E402
from scripts.measure_fill import NAMES, Shape, holes, parser_of, shapes_of  # noqa: E402

KEPT = 600  # voxels of a hole at most
SIZES_ML = (0.03, 0.3, 3.0, 22.0, 80.0)  # the middles of `measure_fill`'s sizes
EDGES_MM = (0.0, 1.5, 2.5, 4.0, 6.0, 9.0, 14.0, np.inf)
DEPTHS_MM = (1.0, 2.0, 3.2, 5.0, 7.4, 11.2, 17.0)
LEAST = 150  # voxels of a cell of the table that is fitted
DISTANCES_MM = np.array([0.5, 1.2, 1.8, 2.5, 3.5, 4.5, 6, 8, 11, 15, 20, 30])
LENGTHS_MM = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)


@dataclass(frozen=True)
class Hole:
    """Some voxels of a hole with known truth.

    Attributes:
        error: truth minus fill, in deviations of the tissue around at that depth, shape (N,).
        place: of the voxels, with a deviation of 1.
        points_mm: shape (N, 3).
    """

    patient: str
    size: int
    error: NDArray[np.float64]
    place: Place
    points_mm: NDArray[np.float64]


def measured(subject: Subject, cohort: Path, filler: Any, shapes: list[Shape], each: int) -> Iterator[Hole]:
    """The holes of a scan."""
    windowed, mm = read_slab(cohort, subject)
    head = foreground(windowed[:, 0])
    allowed = healthy_tissue(windowed[:, 0], read_mask(cohort, subject) > 0, head, mm)
    rng = np.random.default_rng(sum(map(ord, subject.subject)))
    for size, hole in holes(allowed, mm, shapes, each, rng) if allowed.any() else ():
        emptied = np.where(hole[:, None], np.float32(0), windowed)  # no filler sees what was there
        error = (windowed[:, 0] - filler.fill(emptied, hole, mm))[hole]
        place = place_in(emptied[:, 0], hole, head & ~hole, mm)
        kept = rng.choice(len(error), min(KEPT, len(error)), replace=False)
        yield Hole(
            subject.patient,
            size,
            (error / place.deviation.clip(1e-6))[kept].astype(np.float64),
            Place(place.depth_mm[kept], place.ml[kept], np.ones(len(kept), np.float32)),
            np.argwhere(hole)[kept] * np.array(mm),
        )


def fitted(found: Sequence[Hole]) -> FillError:
    """Deviations by size and depth, then the correlation of what is left.

    Raises:
        SystemExit: if there are too few voxels.
    """
    deviations = []
    for size in range(len(SIZES_ML)):
        mine = [hole for hole in found if hole.size == size]
        error = np.concatenate([np.abs(hole.error) for hole in mine]) if mine else np.empty(0)
        depth = np.concatenate([hole.place.depth_mm for hole in mine]) if mine else np.empty(0)
        weight = np.concatenate([np.full(len(hole.error), 1 / len(hole.error)) for hole in mine]) if mine else error
        row: list[float] = []
        for low, high in itertools.pairwise(EDGES_MM):
            cell = (depth >= low) & (depth < high)
            if cell.sum() >= LEAST:
                row.append(_quantile(error[cell], weight[cell]) / Z)
            else:  # deeper than holes of this size are
                row.append(row[-1] if row else np.nan)
        deviations.append(row)
    # A size that there is none of is taken for the next smaller one, or for the next larger one.
    measured = pd.DataFrame(deviations).bfill(axis=1).ffill().bfill()
    if measured.isna().to_numpy().any():
        raise SystemExit(f"found no depth with {LEAST} voxels of holes, expected more scans, or more holes of --each")
    table = measured.round(3).to_numpy().tolist()
    scaled = FillError(SIZES_ML, DEPTHS_MM, table, (1.0,), (1.0,))
    shares = _shares(found, scaled)
    return FillError(SIZES_ML, DEPTHS_MM, table, LENGTHS_MM, shares)


def _quantile(values: NDArray[np.float64], weights: NDArray[np.float64]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, INTERVAL * total[-1])])


def _pairs(hole: Hole) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float64]]:
    first, second = np.triu_indices(len(hole.error), 1)
    return first, second, np.linalg.norm(hole.points_mm[first] - hole.points_mm[second], axis=1)


def _correlations(found: Sequence[Hole], error: FillError) -> NDArray[np.float64]:
    """By distance; NaN where there are no pairs."""
    products, norms = np.zeros(len(DISTANCES_MM) - 1), np.zeros(len(DISTANCES_MM) - 1)
    for hole in found:
        scaled = hole.error / error.deviation(hole.place)
        first, second, distance_mm = _pairs(hole)
        where = np.digitize(distance_mm, DISTANCES_MM) - 1
        counted = (where >= 0) & (where < len(products))
        products += np.bincount(where[counted], (scaled[first] * scaled[second])[counted], len(products))
        norms += np.bincount(where[counted], ((scaled[first] ** 2 + scaled[second] ** 2) / 2)[counted], len(norms))
    return np.divide(products, norms, out=np.full(len(products), np.nan), where=norms > 0)


def _shares(found: Sequence[Hole], error: FillError) -> list[float]:
    correlation = _correlations(found, error)
    middle = (DISTANCES_MM[:-1] + DISTANCES_MM[1:]) / 2
    seen = np.isfinite(correlation)
    kernels = np.exp(-(middle[seen, None] ** 2) / (2 * np.array(LENGTHS_MM) ** 2))
    # At no distance it is 1.
    shares, _ = nnls(np.vstack([kernels, 10 * np.ones(len(LENGTHS_MM))]), np.append(correlation[seen], 10.0))
    return (shares / shares.sum()).round(3).tolist()


def inside(found: Sequence[Hole], error: FillError) -> list[tuple[int, float, bool]]:
    """Of each hole its size, the share of its voxels inside their intervals, and whether its mean is inside its own."""
    rows = []
    for hole in found:
        deviation = error.deviation(hole.place).astype(np.float64)
        first, second, distance_mm = _pairs(hole)
        shared = 2 * (deviation[first] * deviation[second] * error.correlation(distance_mm)).sum()
        mean_deviation = ((deviation**2).sum() + shared) ** 0.5 / len(deviation)
        covered = float((np.abs(hole.error) <= Z * deviation).mean())
        rows.append((hole.size, covered, abs(hole.error.mean()) <= Z * mean_deviation))
    return rows


def table(found: Sequence[Hole]) -> list[str]:
    """Coverage by size: fitted on half of the patients and measured on the other, both ways.

    Raises:
        SystemExit: if there are no two patients.
    """
    patients = sorted({hole.patient for hole in found})
    if len(patients) < 2:
        raise SystemExit(
            f"found holes in scans of {len(patients)} patients, expected two at least; take another --split"
        )
    halves = [[hole for hole in found if hole.patient in patients[start::2]] for start in (0, 1)]
    crossed = [inside(halves[1 - index], fitted(half)) for index, half in enumerate(halves)]
    lines = [
        "| hole | holes | voxels inside, % | of the halves, % | means of holes inside, % |",
        "|---|---:|---:|---:|---:|",
    ]
    for size, name in enumerate(NAMES):
        mine = [[row for row in rows if row[0] == size] for rows in crossed]
        both = [row for rows in mine for row in rows]
        if both:
            each = " and ".join(f"{100 * np.mean([row[1] for row in rows]):.0f}" for rows in mine if rows)
            voxels, means = (100 * np.mean([row[index] for row in both]) for index in (1, 2))
            lines.append(f"| {name} | {len(both)} | {voxels:.0f} | {each} | {means:.0f} |")
    return lines


def write(error: FillError, path: Path) -> None:
    """Put it into an inference config, whose other lines stay as they are.

    Raises:
        SystemExit: if the config has no `fill_error`.
    """
    lines = [f'        "{name}": {json.dumps(value)}' for name, value in asdict(error).items()]
    lines.insert(0, '        "_target_": "pipeline.inference.fill_error.FillError"')
    block = '"fill_error": {\n' + ",\n".join(lines) + "\n    }"
    text, count = re.subn(r'"fill_error": (null|\{[^{}]*\})', lambda _: block, path.read_text(), count=1)
    if not count:
        raise SystemExit(f"{path}: has no `fill_error`, expected one, null before it is calibrated; add it")
    write_text(path, text)


def main() -> None:
    """Read the command line."""
    parser = parser_of(__doc__, each=4)
    parser.add_argument("--write", action="store_true", help="store it in the bundle's inference config")
    given = parser.parse_args()
    bundle = find_bundle(given.bundle)
    filler = load_predictor(bundle, "filler", "cpu")[0]
    shapes = shapes_of(given.cohort, given.split, given.shapes)
    found: list[Hole] = []
    for subject in read_cohort(given.cohort).of(given.split):
        found += measured(subject, given.cohort, filler, shapes, given.each)
        print(subject.subject, len(found), "holes", flush=True)
    write_text(given.output, "\n".join(table(found)) + "\n")
    print(given.output.read_text())
    if given.write:
        write(fitted(found), bundle.config("inference"))


if __name__ == "__main__":
    main()
