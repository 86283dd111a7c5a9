"""Counterfeits that a pre-trained segmentor takes for healthy (GVS, Section IV and Fig. 6).

The lesion is filled with the mean of normal tissue, or noise is added to it. Neither is healthy tissue; a metric of
healthiness should say so, and f_pre (PHS-GAN, Section 4.2) may not.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from pipeline.devices import pick_device
from pipeline.evaluation import ADiceSettings, Judge, load_judge
from pipeline.evaluation.bracketed import LEARNED, ORIGINAL, ADiceSlices
from pipeline.evaluation.controls import UNTOUCHED, mean_filled
from pipeline.evaluation.judge import ITERATIONS, SCALES, SEED
from pipeline.evaluation.volumes import Volume, pathological_subjects, read_volume
from pipeline.files import sha256
from pipeline.metrics import A_DICE, healthiness_of_counts
from pipeline.mosaic import mosaic
from pipeline.preprocessing.cohort_format import COHORT_FILE, Subject
from pipeline.reports.markdown import table
from pipeline.studies.pictures import shown_slices, spread
from pipeline.studies.study import judged_by, mean_sd, once, open_study, over_seeds, write_study

VARIANCE = 0.2
MEAN, NOISE = "mean-filled lesion", "lesion with noise"
COLUMNS = {"healthiness": ("healthiness, all slices pooled ↑", 3), "found_inside": ("lesion still found, share ↓", 3)}


def noisy(x: Tensor, mask: Tensor, variance: float, seed: int) -> Tensor:
    """Gaussian noise of zero mean added inside the lesion (GVS, Fig. 6, second row), clipped to [0, 1].

    Args:
        x: images in [0, 1], shape (N, 1, H, W).
        mask: lesion, bool, same shape.
        variance: of the noise; 0.2 in the paper.
        seed: of the draw; the global random state is neither used nor changed.
    """
    draw = torch.Generator().manual_seed(seed)
    noise = variance**0.5 * torch.randn(x.shape, generator=draw)
    return torch.where(mask, (x + noise).clamp(0, 1), x)


def counterfeits(
    cohort: Path,
    folder: Path,
    seeds: int = 3,
    variance: float = VARIANCE,
    split: str = "validation",
    judge_iterations: int = ITERATIONS,
    judge: str = "default",
    a_dice: ADiceSettings | None = None,
    device: str = "auto",
) -> str:
    """Judge two counterfeits, and the untouched input, by healthiness, and by A-Dice if asked to; and show them.

    Started again, it skips what is finished; seeds may be added then, all else stays.

    Args:
        cohort: folder made by `preprocess`, which keeps the judges.
        folder: of the study.
        seeds: judges, with the seeds 1234, 1235, …
        variance: of the noise.
        split: patients whose lesions are counterfeited.
        judge_iterations: of the judges' trainings.
        judge: how large they are, of `pipeline.evaluation.judge.SCALES`.
        a_dice: how to measure A-Dice; None does not measure it.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if the split has no pathological slice, or the folder holds another study.
    """
    target = pick_device(device)
    settings = {"cohort_sha256": sha256(cohort / COHORT_FILE), "split": split, "variance": variance, "judge": judge}
    open_study(folder, {"study": "counterfeits", **settings, "judge_iterations": judge_iterations})
    records = pathological_subjects(cohort, split)
    judges = [load_judge(cohort, SEED + seed, judge_iterations, target, SCALES[judge]) for seed in range(seeds)]

    def made(volume: Volume) -> dict[str, Tensor]:
        return {
            UNTOUCHED: volume.image,
            MEAN: mean_filled(volume.image, volume.lesion, volume.foreground),
            NOISE: noisy(volume.image, volume.lesion, variance, zlib.crc32(volume.subject.encode())),
        }

    def judged(seed: int) -> dict[str, Any]:
        counts: dict[str, list[int]] = {}  # lesion found, found inside the lesion, annotated
        for record in records:
            volume = read_volume(cohort, record)
            for name, image in made(volume).items():
                found = judges[seed].predict(image, volume.spacing_mm)
                new = [int(found.sum()), int((found & volume.lesion).sum()), int(volume.lesion.sum())]
                counts[name] = [a + b for a, b in zip(counts.get(name, [0, 0, 0]), new, strict=True)]
        rows = [
            {"images": name, "healthiness": healthiness_of_counts(found, lesion), "found_inside": inside / lesion}
            for name, (found, inside, lesion) in counts.items()
        ]
        return {"seed": seed, "dice": judges[seed].about["dice"].get(split), "rows": rows}

    results = [once(folder / "results" / f"seed={seed}.json", partial(judged, seed)) for seed in range(seeds)]
    rows = [{"seed": found["seed"], **row} for found in results for row in found["rows"]]
    frame = over_seeds(rows, ["images"], list(COLUMNS))
    measured = None
    if a_dice:
        digest = hashlib.sha256(json.dumps(asdict(a_dice), default=list, sort_keys=True).encode()).hexdigest()[:12]
        measured = once(
            folder / "results" / f"a_dice_{digest}.json", lambda: _a_dice(cohort, split, a_dice, made, target)
        )
        frame = _with_a_dice(frame, measured)
    picture = _picture(cohort, records, made, judges[0])
    page = f"{_page(frame, results, split, variance, measured)}\n\n{judged_by(SCALES[judge])}"
    write_study(folder, page, frame, [*results, *([measured] if measured else [])], picture.save)
    return page


def _a_dice(
    cohort: Path,
    split: str,
    settings: ADiceSettings,
    made: Callable[[Volume], dict[str, Tensor]],
    device: torch.device,
) -> dict[str, Any]:
    slices = ADiceSlices(cohort, split, settings)
    for record in pathological_subjects(cohort, split):
        volume = read_volume(cohort, record)
        slices.add(volume, {name: image for name, image in made(volume).items() if name != UNTOUCHED})
    return slices.measure(NOISE, device)


def _with_a_dice(frame: pd.DataFrame, measured: dict[str, Any]) -> pd.DataFrame:
    """Mean, deviation and number of trainings of each row; the untouched input is the originals."""
    rows = [measured["images"].get(ORIGINAL if name == UNTOUCHED else name, {}) for name in frame["images"]]
    trained = [len(row.get("seeds", [])) - sum(row.get("collapsed", [])) for row in rows]
    return frame.assign(
        a_dice=[row.get("mean") for row in rows], a_dice_sd=[row.get("sd") for row in rows], a_dice_n=trained
    ).astype({"a_dice": float, "a_dice_sd": float})


def _page(
    frame: pd.DataFrame, results: list[dict[str, Any]], split: str, variance: float, measured: dict[str, Any] | None
) -> str:
    columns = {**COLUMNS, **({A_DICE.name: (A_DICE.heading, A_DICE.digits)} if measured else {})}
    rows = [
        [row["images"], *(mean_sd(row, name, digits) for name, (_, digits) in columns.items())]
        for _, row in frame.iterrows()
    ]
    dice = [found["dice"]["pooled"] for found in results if found["dice"]]
    judges = f"{len(results)} segmentors with different seeds"
    seen = f", whose own Dice on the untouched slices is {min(dice):.3f} to {max(dice):.3f}" if dice else ""
    over = (
        f"Mean ± standard deviation over {judges}{seen}, on all pathological slices of the {split} split together. "
        f"*{MEAN}*: the mean of the slice's normal tissue; *{NOISE}*: Gaussian noise of zero mean and variance "
        f"{variance:g} added to the lesion, in units of the intensity window. Neither is healthy tissue: a high "
        "healthiness says what the segmentor cannot see, not what is healthy."
    )
    notes = [over]
    if measured:
        notes.append(
            "A-Dice is lower where a segmentor that is trained on these very images fits the lesions more slowly; what "
            "differs from normal tissue, an artifact too, is fitted fast (GVS, Section IV)."
        )
        if A_DICE.text(0.0) in map(A_DICE.text, frame[A_DICE.name]):
            notes.append("Rows at 0 stand at its floor: so short a training cannot tell them apart.")
        if not measured["learned"]:
            notes.append(
                f"**The lesions of the untouched input themselves were not learned (A-Dice below {LEARNED:g}), so its "
                "column ranks nothing.**"
            )
    return "\n\n".join([table(["images", *(heading for heading, _ in columns.values())], rows), *notes])


def _picture(
    cohort: Path, records: Sequence[Subject], made: Callable[[Volume], dict[str, Tensor]], judge: Judge
) -> Any:
    """Some patients: each counterfeit, and what a judge finds in it, between input and annotation."""
    rows = []
    for shown in spread(shown_slices(read_volume(cohort, record) for record in records)):
        volume = read_volume(cohort, records[shown.volume])
        panels = [shown.panel(shown.image)]
        for name, images in made(volume).items():
            image = images[shown.row : shown.row + 1]
            found = judge.predict(image, volume.spacing_mm)[0, 0].cpu().numpy()
            drawn = image[0, 0].numpy()
            panels += (
                [shown.panel(drawn, found)] if name == UNTOUCHED else [shown.panel(drawn), shown.panel(drawn, found)]
            )
        rows.append([*panels, shown.panel(shown.image, shown.lesion)])
    seen = "what f_pre finds"
    titles = ["input", f"{seen} there", MEAN, f"{seen} there", NOISE, f"{seen} there", "lesion annotation"]
    return mosaic(titles, rows, f"SYNTHETIC counterfeits; f_pre of seed {SEED}; not for diagnosis")
