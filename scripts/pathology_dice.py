"""How well each kind of lesion is found and told from the others, by a run of `genseg` with the preset `pathologies`.

    phs-pipeline phantom --kind sequences -o SCANS --subjects 24
    phs-pipeline preprocess SCANS -o COHORT --channels FLAIR,T1w,T2w,PDw --target lesion --whole
    phs-pipeline train genseg --data COHORT -o RUN --preset scans --preset pathologies
    python scripts/pathology_dice.py RUN COHORT --split test

For each kind the Dice pooled over all slices of the split's scans, of other kinds too; beside it two chances: the whole
head or brain taken for that kind, and what was found with its kinds drawn anew for each scan, evenly.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from pipeline.bundles import find_bundle  # noqa: E402
from pipeline.evaluation.predictions import shown_to  # noqa: E402
from pipeline.evaluation.volumes import HEALTHY, PATHOLOGICAL, read_volume, subjects_with  # noqa: E402
from pipeline.inference import load_predictor  # noqa: E402

Masks = NDArray[np.bool_]
DRAWS = 20


def scans(run: Path, cohort: Path, split: str) -> tuple[tuple[str, ...], list[tuple[str, Masks, Masks, Masks]]]:
    """The kinds, and of each scan its own, what was found of each (slices, kinds, H, W), the lesion and the head."""
    segmenter, _ = load_predictor(find_bundle(str(run)), "segmenter")

    def found() -> Iterator[tuple[str, Masks, Masks, Masks]]:
        for record in subjects_with(cohort, split, PATHOLOGICAL, HEALTHY):
            volume = read_volume(cohort, record, PATHOLOGICAL, HEALTHY)
            windowed, chosen = shown_to(segmenter, volume)
            masks = segmenter.probabilities(windowed, volume.voxel_mm)[chosen] >= segmenter.threshold
            yield str(record.target), masks, volume.lesion[:, 0].numpy(), volume.foreground[:, 0].numpy()

    return segmenter.labels, list(found())


def dice(pairs: list[tuple[Masks, Masks]]) -> float:
    """Pooled over pairs of masks; nan where all are empty."""
    both = sum(int((found & drawn).sum()) for found, drawn in pairs)
    pixels = sum(int(found.sum() + drawn.sum()) for found, drawn in pairs)
    return 2 * both / pixels if pixels else float("nan")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--split", default="test")
    given = parser.parse_args()
    kinds, measured = scans(given.run, given.cohort, given.split)
    rng = np.random.default_rng(0)
    print("kind,scans,dice,dice of the whole head,dice with kinds drawn anew")
    for index, kind in enumerate(kinds):
        drawn = [lesion & (own == kind) for own, _, lesion, _ in measured]
        found = [masks[:, index] for _, masks, _, _ in measured]
        head = [inside for *_, inside in measured]
        chance = [
            dice(
                [
                    (masks[:, rng.permutation(len(kinds))[index]], y)
                    for (_, masks, _, _), y in zip(measured, drawn, strict=True)
                ]
            )
            for _ in range(DRAWS)
        ]
        print(
            f"{kind},{sum(own == kind for own, *_ in measured)},{dice(list(zip(found, drawn, strict=True))):.3f},"
            f"{dice(list(zip(head, drawn, strict=True))):.3f},{np.mean(chance):.3f}"
        )
    any_kind = [(masks.any(axis=1), lesion) for _, masks, lesion, _ in measured]
    whole = [(inside, lesion) for _, _, lesion, inside in measured]
    print(f"any,{len(measured)},{dice(any_kind):.3f},{dice(whole):.3f},")


if __name__ == "__main__":
    main()
