"""What a fill is worth downstream: the volumes of grey and white matter that are measured in a filled scan.

Lesions are planted in scans whose truth is known, and filled. The truth and each filled scan are segmented in the same
way, and so the untouched one: what differs is the error that a lesion, or its fill, makes of a volume.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.bundles import Bundle
from pipeline.comparison.significance import ALPHA, PairedTest, holm, wilcoxon_signed_rank
from pipeline.errors import UsageError
from pipeline.evaluation.predictions import KINDS, Fields, Item, of_volume
from pipeline.evaluation.scores import mean_of_finite
from pipeline.evaluation.tissue import CLASSES, SEED, Tissues
from pipeline.evaluation.volumes import PATHOLOGICAL, pathological_subjects, read_truth, read_volume
from pipeline.files import sha256
from pipeline.inference import load_predictor
from pipeline.launch import check_unseen
from pipeline.metrics import METRICS
from pipeline.metrics.lesion_size import SIZES, size_classes
from pipeline.metrics.metric import measured
from pipeline.preprocessing.brain import brain_region
from pipeline.preprocessing.cohort_format import COHORT_FILE, Subject, read_cohort
from pipeline.reports.markdown import count, escaped, table
from pipeline.scans.contrast import named_contrast
from pipeline.studies.study import mean_sd, once, open_study, over_seeds, write_study

logger = logging.getLogger(__name__)

DEFAULT_CONTRAST = "T1w"
ALL = "all scans"
TISSUES = {"gm": "grey matter, % ↓", "wm": "white matter, % ↓"}
SSIM = METRICS["ssim_lesion"]
COLUMNS = {**dict.fromkeys(TISSUES, 2), SSIM.name: SSIM.digits}


def volumes(
    bundles: Sequence[Bundle],
    cohort: Path,
    folder: Path,
    contrast: str | None = None,
    split: str = "validation",
    device: str = "auto",
) -> str:
    """Measure grey and white matter in scans with planted lesions: untouched, and filled by bundles and by controls.

    Started again, it skips the scans that are finished.

    Args:
        bundles: fillers.
        cohort: folder made by `preprocess --whole` of scans with planted lesions and their truth.
        folder: of the study.
        contrast: of the scans, one of `CLASSES`; None: as each scan's name tells, else `DEFAULT_CONTRAST`.
        split: whose lesions are filled.
        device: where to compute.

    Returns:
        The table, in Markdown.

    Raises:
        UsageError: if a bundle is no filler, is called as another or was trained on patients of the split, the cohort
            has no truth or not whole scans, its contrast is none whose tissues are told apart, or the folder holds
            another study.
    """
    content = read_cohort(cohort)
    if content.settings.slab.slices is not None or content.settings.slab.thickness_mm is not None:
        raise UsageError(
            f"{cohort}: holds a slab of each scan, expected whole scans, whose volumes are measured; run `phs-pipeline "
            "preprocess --whole`"
        )
    records = pathological_subjects(cohort, split)
    contrasts = {record.subject: _contrast(cohort, record, contrast) for record in records}
    fills, provenance = _fills(bundles, cohort, split, device)
    open_study(
        folder,
        {
            "study": "volumes",
            "bundles": provenance,
            "cohort_sha256": sha256(cohort / COHORT_FILE),
            "split": split,
            "contrast": contrast,
            "rows": list(fills),
            "seed": SEED,
        },
    )

    def result(record: Subject) -> dict[str, Any]:
        logger.info("segmenting %s", record.subject)
        return _measure(cohort, record, contrasts[record.subject], fills)

    results = [once(folder / "scans" / f"{record.subject}.json", partial(result, record)) for record in records]
    frame = _table(results, list(provenance))
    page = _page(frame, results, list(provenance), split)
    write_study(folder, page, frame, results, lambda path: _figure(results, list(fills)).savefig(path, dpi=150))
    return page


def _contrast(cohort: Path, record: Subject, given: str | None) -> str:
    if record.truth is None:
        raise UsageError(
            f"{cohort}: {record.subject} has no truth, expected scans with planted lesions; make them with "
            "`phs-pipeline phantom --kind planted`"
        )
    found = given or named_contrast(record.image_name) or DEFAULT_CONTRAST
    if found not in CLASSES:
        raise UsageError(
            f"{cohort}: {record.subject} is a scan of the contrast {found}, expected one of {', '.join(CLASSES)}, "
            "whose tissues are told apart; preprocess another contrast, or name it with --contrast"
        )
    return found


def _fills(
    bundles: Sequence[Bundle], cohort: Path, split: str, device: str
) -> tuple[dict[str, Callable[[Item], Fields]], dict[str, Any]]:
    """What fills a lesion, by name, bundles first, and the provenance of the bundles."""
    kind = KINDS["filler"]
    controls = kind.controls(cohort, None)
    fills: dict[str, Callable[[Item], Fields]] = {}
    provenance = {}
    for bundle in bundles:
        name = bundle.root.name
        if name in fills or name in controls:
            raise UsageError(f"-b {bundle.root}: is the second row named {name}, expected names that tell rows apart")
        check_unseen(bundle, cohort, split)
        predictor, provenance[name] = load_predictor(bundle, "filler", device)
        fills[name] = partial(kind.predict, predictor)
    return {**fills, **controls}, provenance


def _measure(
    cohort: Path, record: Subject, contrast: str, fills: Mapping[str, Callable[[Item], Fields]]
) -> dict[str, Any]:
    """Millilitres of each tissue in the truth and in each version of a scan, in the same region of all of them."""
    volume = read_volume(cohort, record, PATHOLOGICAL, "excluded")
    truth = read_truth(cohort, record)
    assert truth is not None  # noqa: S101 (`_contrast` has refused it)
    region = volume.slab_foreground & brain_region(truth, volume.voxel_mm)
    sizes = size_classes(volume.slab_lesion, volume.voxel_ml)

    def in_ml(tissues: Tissues) -> dict[str, float]:
        return {tissue: voxels * volume.voxel_ml for tissue, voxels in tissues.voxels.items()}

    of_truth = Tissues(truth, region, contrast)
    true_ml = in_ml(of_truth)
    item, rows = of_volume(volume), []
    for name, fill in fills.items():
        fields = {**item.given, **fill(item)}
        filled = volume.slab_image.copy()
        filled[volume.places] = fields["twin"][:, 0].cpu().numpy()
        found_ml = in_ml(Tissues(filled, region, contrast, start=of_truth))
        fields["twin"] = fields["twin"].cpu().to(torch.float32)
        rows.append(
            {
                "images": name,
                "ml": found_ml,
                **{tissue: _percent(found_ml[tissue.upper()], true_ml[tissue.upper()]) for tissue in TISSUES},
                SSIM.name: mean_of_finite(pd.Series(measured(SSIM, fields)[SSIM.name].numpy())),
            }
        )
    return {
        "subject": record.subject,
        "patient": record.patient,
        "contrast": contrast,
        "size": SIZES[int(sizes.max()) - 1].name,
        "lesion_ml": float(volume.slab_lesion.sum()) * volume.voxel_ml,
        "brain_ml": float(region.sum()) * volume.voxel_ml,
        "truth_ml": true_ml,
        "rows": rows,
    }


def _percent(found_ml: float, true_ml: float) -> float | None:
    """The error of a volume, in percent of the true one; None where there is none of it."""
    return 100 * (found_ml - true_ml) / true_ml if true_ml else None


def _by_patient(results: Sequence[dict[str, Any]], size: str) -> pd.DataFrame:
    """Each patient's mean over their scans, of absolute errors, by row of the table."""
    rows = [
        {"patient": result["patient"], **{name: row[name] for name in ("images", *COLUMNS)}}
        for result in results
        if size in (ALL, result["size"])
        for row in result["rows"]
    ]
    frame = pd.DataFrame(rows).astype(dict.fromkeys(COLUMNS, float))
    frame[list(TISSUES)] = frame[list(TISSUES)].abs()
    return frame.groupby(["images", "patient"], sort=False)[list(COLUMNS)].mean().reset_index()


def _table(results: Sequence[dict[str, Any]], methods: Sequence[str]) -> pd.DataFrame:
    """Mean, deviation and number of patients of each row, for all scans and by the size of the largest lesion."""
    present = [size.name for size in SIZES if any(result["size"] == size.name for result in results)]
    parts = []
    for size in (ALL, *(present if len(present) > 1 else ())):
        patients = _by_patient(results, size)
        part = over_seeds(patients, ["images"], list(COLUMNS))
        part.insert(0, "size", size)
        part.insert(1, "scans", sum(size in (ALL, result["size"]) for result in results))
        part.insert(3, "kind", ["method" if name in methods else "control" for name in part["images"]])
        parts.append(_with_tests(part, patients))
    return pd.concat(parts, ignore_index=True)


def _with_tests(part: pd.DataFrame, patients: pd.DataFrame) -> pd.DataFrame:
    """Each method against the control of the least mean error, corrected for the number of tests of these scans."""
    controls = part[part["kind"] == "control"].set_index("images")
    tests: dict[tuple[str, str], PairedTest] = {}
    for tissue in TISSUES:
        errors = patients.pivot_table(index="patient", columns="images", values=tissue)
        best = str(controls[tissue].idxmin())
        part[f"{tissue}_best_control"] = best
        for method in part.loc[part["kind"] == "method", "images"]:
            tests[method, tissue] = wilcoxon_signed_rank(errors[method], errors[best])
    corrected = dict(zip(tests, holm([test.p for test in tests.values()]), strict=True))
    for tissue in TISSUES:
        part[f"{tissue}_p"] = [corrected.get((name, tissue), np.nan) for name in part["images"]]
    part["least_p"] = min((test.least_p * len(tests) for test in tests.values()), default=np.nan)
    return part


def _page(frame: pd.DataFrame, results: Sequence[dict[str, Any]], methods: Sequence[str], split: str) -> str:
    labels = {size.name: f"Largest lesion: {size.label.removeprefix('lesions ')}" for size in SIZES}
    contrasts = ", ".join(dict.fromkeys(result["contrast"] for result in results))
    patients = len({result["patient"] for result in results})
    parts = []
    for size, part in frame.groupby("size", sort=False):
        if size != ALL:
            number = count(int(part["scans"].iloc[0]), "scan")
            parts.append(f"### {labels[str(size)]} ({number} of {count(int(part['gm_n'].iloc[0]), 'patient')})")
        parts.append(_rows(part, methods))
    over = (
        f"Error of the volume in % of the truth's, without its sign: mean ± standard deviation over {patients} "
        f"patients of the {split} split ({count(len(results), 'scan')}, {contrasts}), of whom each counts with the "
        "mean over their scans; lesion SSIM against the truth beside it. A mixture of three Gaussians (scikit-learn, "
        "fixed seed) is fitted to each version of a scan, starting from the truth's, in the same region of the brain "
        "for all of them, which leaves the person's own disease out; volumes are sums of probabilities."
    )
    tested = (
        "p: two-sided Wilcoxon signed-rank test over patients against the control of the least mean error (\\*), "
        "corrected by Holm for the tests of a table."
    )
    notes = [over, tested]
    if frame["least_p"].min() >= ALPHA:
        notes.append(
            f"**With {patients} patients no p of these tests can be below {frame['least_p'].min():.2g}: they decide "
            "nothing.**"
        )
    return "\n\n".join([parts[0], *notes, *parts[1:]])


def _rows(part: pd.DataFrame, methods: Sequence[str]) -> str:
    rows = []
    for _, row in part.iterrows():
        cells = [escaped(row["images"]) if row["images"] in methods else row["images"]]
        for tissue in TISSUES:
            star = " (\\*)" if row["images"] == row[f"{tissue}_best_control"] else ""
            cells.append(mean_sd(row, tissue, COLUMNS[tissue]) + star)
        cells.append(mean_sd(row, SSIM.name, SSIM.digits))
        cells += ["" if pd.isna(row[f"{tissue}_p"]) else f"{row[f'{tissue}_p']:.3g}" for tissue in TISSUES]
        rows.append(cells)
    return table(["images", *TISSUES.values(), SSIM.heading, "p, grey", "p, white"], rows)


def _figure(results: Sequence[dict[str, Any]], names: Sequence[str]) -> Any:
    """Each scan's errors, with their sign, by row of the table; colours are patients."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 1.2 + 0.32 * len(names)), layout="constrained")
    patients = list(dict.fromkeys(result["patient"] for result in results))
    for axes, (tissue, heading) in zip(figure.subplots(1, 2, sharey=True), TISSUES.items(), strict=True):
        axes.axvline(0, color="grey", linewidth=0.8)
        for number, patient in enumerate(patients):
            own = [result for result in results if result["patient"] == patient]
            points = [
                (row[tissue], names.index(row["images"]))
                for result in own
                for row in result["rows"]
                if row[tissue] is not None
            ]
            axes.scatter(*zip(*points, strict=True), s=16, alpha=0.7, color=f"C{number % 10}")
        axes.set_title(heading.partition(",")[0], fontsize="medium")
        axes.set_xlabel("error of the volume, %")
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].invert_yaxis()
    return figure
