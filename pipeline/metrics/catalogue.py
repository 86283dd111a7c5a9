"""The metrics of an evaluation, each one object: adding one here adds it to every table, report and choice."""

import math
from collections.abc import Callable

import numpy as np
import torch
from scipy.stats import rankdata
from torch import Tensor

from pipeline.metrics.contrast import (
    AROUND_MM,
    MARGIN_MM,
    contrast,
    contrast_error,
    contrast_sums,
    identical_counts,
    paired_contrast_sums,
)
from pipeline.metrics.fidelity import psnr, ssim, ssim_map
from pipeline.metrics.healthiness import healthiness_of_counts
from pipeline.metrics.identity import identity
from pipeline.metrics.lesion_size import SIZES, SizeClass
from pipeline.metrics.metric import Columns, Metric
from pipeline.metrics.segmentation import dice, fragments, hd95, holes

IDENTICAL = "identical"
HALF = 0.5  # probability at which a lesion or a class is called present


def _lesion_counts(found: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"lesion_pixels": _pixels(mask), "predicted_pixels": _pixels(found)}


def _healthiness(rows: Columns) -> float:
    return healthiness_of_counts(int(rows["predicted_pixels"].sum()), int(rows["lesion_pixels"].sum()))


def _overlap_counts(prediction: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {**_lesion_counts(prediction, mask), "overlap_pixels": _pixels(prediction.bool() & mask.bool())}


def _overlap_of_kind(of_its_kind: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {f"kind_{name}": counts for name, counts in _overlap_counts(of_its_kind, mask).items()}


def _dice_of_kind(rows: Columns) -> float:
    pixels = rows["kind_predicted_pixels"].sum() + rows["kind_lesion_pixels"].sum()
    return _ratio(2 * rows["kind_overlap_pixels"].sum(), pixels)


def _dice(rows: Columns) -> float:
    return _ratio(2 * rows["overlap_pixels"].sum(), rows["predicted_pixels"].sum() + rows["lesion_pixels"].sum())


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else math.nan


def _pixels(mask: Tensor) -> Tensor:
    return mask.bool().sum(dim=(1, 2, 3))


def _volumes(prediction: Tensor, mask: Tensor, voxel_ml: float) -> dict[str, Tensor]:
    return {"lesion_ml": _pixels(mask) * voxel_ml, "predicted_ml": _pixels(prediction) * voxel_ml}


def _scored(prediction: float, target: float) -> dict[str, Tensor]:
    return {"prediction": torch.tensor([prediction]), "target": torch.tensor([target], dtype=torch.float64)}


def _classified(prediction: float, label: float) -> dict[str, Tensor]:
    return {"prediction": torch.tensor([prediction]), "label": torch.tensor([label])}


def _r2(rows: Columns) -> float:
    errors, target = rows["prediction"] - rows["target"], rows["target"]
    spread = float(((target - target.mean()) ** 2).sum())
    return 1 - float((errors**2).sum()) / spread if spread else math.nan


def _correlation(rows: Columns) -> float:
    varies = len(rows["prediction"]) > 1 and rows["prediction"].std() > 0 and rows["target"].std() > 0
    return float(np.corrcoef(rows["prediction"], rows["target"])[0, 1]) if varies else math.nan


def _auroc(rows: Columns) -> float:
    positive = rows["label"] >= HALF
    pairs = int(positive.sum()) * int((~positive).sum())
    ranks = rankdata(rows["prediction"])[positive]
    return float(ranks.sum() - len(ranks) * (len(ranks) + 1) / 2) / pairs if pairs else math.nan


def _of_size(number: int, size: SizeClass) -> tuple[Metric, Metric]:
    """PSNR and SSIM against the truth in the lesions of one size, over all voxels of these in a volume."""
    voxels, error, similarity = (f"{what}_{size.name}" for what in ("voxels", "squared_error", "ssim_sum"))

    def sums(name: str, values: Callable[[], Tensor], sizes: Tensor) -> dict[str, Tensor]:
        here = (sizes == number).double()
        # Most slices have no lesion of this size.
        total = (values().double() * here).sum(dim=(1, 2, 3)) if here.any() else here.sum(dim=(1, 2, 3))
        return {voxels: here.sum(dim=(1, 2, 3)), name: total}

    def mean_psnr(rows: Columns) -> float:
        mean = _ratio(rows[error].sum(), rows[voxels].sum())
        return math.inf if mean == 0 else 10 * math.log10(1 / mean)

    return (
        Metric(
            f"psnr_{size.name}", f"{size.label}: PSNR against truth, dB",
            "against the healthy truth over all voxels of a scan's lesions of this size, connected in 3-D; peak 1",
            2, "higher", ("twin", "truth", "sizes"), "volume", math.inf, IDENTICAL,
            measure=lambda twin, truth, sizes: sums(error, lambda: (twin - truth) ** 2, sizes), combine=mean_psnr,
        ),
        Metric(
            f"ssim_{size.name}", f"{size.label}: SSIM against truth",
            "mean over the same voxels of the SSIM in each slice; windows see the surroundings too",
            4, "higher", ("twin", "truth", "sizes"), "volume", 1.0, IDENTICAL,
            measure=lambda twin, truth, sizes: sums(similarity, lambda: ssim_map(twin, truth), sizes),
            combine=lambda rows: _ratio(rows[similarity].sum(), rows[voxels].sum()),
        ),
    )  # fmt: skip


NORMAL = "the foreground outside the lesion (GVS, Section V.D)"
COUNTED = (
    "1 − predicted / annotated lesion pixels (PHS-GAN, Section 4.2), predicted on the image by an independently "
    "trained segmentor; it may be negative and is not clipped"
)

TRANSLATION = (
    Metric(
        "healthiness_pooled", "healthiness, all slices pooled", f"{COUNTED}; over all slices together",
        3, "higher", ("found", "mask"), "pooled", perfect=1.0, headline=True,
        measure=_lesion_counts, combine=_healthiness,
    ),
    Metric(
        "healthiness", "healthiness of a volume", COUNTED, 3, "higher", ("found", "mask"), "volume", perfect=1.0,
        measure=_lesion_counts, combine=_healthiness,
    ),
    Metric(
        "psnr_normal", "normal tissue PSNR, dB", f"against the input over normal tissue, {NORMAL}; peak 1",
        2, "higher", ("twin", "image", "mask", "foreground"), "slice", math.inf, IDENTICAL, headline=True,
        measure=lambda twin, image, mask, foreground: psnr(twin, image, foreground & ~mask),
    ),
    Metric(
        "ssim_normal", "normal tissue SSIM",
        f"against the input over normal tissue, {NORMAL}; windows see normal tissue only",
        4, "higher", ("twin", "image", "mask", "foreground"), "slice", 1.0, IDENTICAL, headline=True,
        measure=lambda twin, image, mask, foreground: ssim(twin, image, foreground & ~mask),
    ),
    Metric(
        "contrast", "lesion contrast",
        f"|mean of the lesion − mean of the tissue {MARGIN_MM:g} to {AROUND_MM:g} mm around it in the slice|, in "
        "standard deviations of that tissue; 0 where nothing stands out",
        3, "lower", ("twin", "mask", "foreground", "spacing_mm"), "volume", 0.0,
        measure=contrast_sums, combine=contrast,
    ),
    Metric(
        "bit_identical", "normal tissue bit-identical, %",
        f"share of the foreground further than {MARGIN_MM:g} mm from the lesion whose value is exactly the input's",
        2, "higher", ("twin", "image", "mask", "foreground", "spacing_mm"), "volume", 1.0, IDENTICAL, factor=100,
        measure=identical_counts,
        combine=lambda rows: _ratio(rows["identical_pixels"].sum(), rows["far_pixels"].sum()),
    ),
    Metric(
        "identity", "identity (masked MS-SSIM)",
        "MS-SSIM of image and input with the lesion set to zero in both (PHS-GAN, Section 4.2); lesion and background "
        "agree for free",
        4, "higher", ("twin", "image", "mask"), "slice", 1.0, IDENTICAL,
        measure=lambda twin, image, mask: identity(twin, image, lesion=mask),
    ),
    Metric(
        "psnr_lesion", "lesion against truth PSNR, dB",
        "against the healthy truth inside the lesion, where a truth is known (phantoms); peak 1",
        2, "higher", ("twin", "truth", "mask"), "slice", math.inf, IDENTICAL,
        measure=lambda twin, truth, mask: psnr(twin, reference=truth, mask=mask),
    ),
    Metric(
        "ssim_lesion", "lesion against truth SSIM",
        "against the healthy truth inside the lesion, where it is known (phantoms); windows see the surroundings too",
        4, "higher", ("twin", "truth", "mask"), "slice", 1.0, IDENTICAL,
        measure=lambda twin, truth, mask: ssim(twin, truth, mask, surroundings=True),
    ),
    *(metric for number, size in enumerate(SIZES, start=1) for metric in _of_size(number, size)),
    Metric(
        "own_dice", "Dice of its own segmentor",
        "2 |P ∩ L| / (|P| + |L|) of the lesion that the segmentor which the method was trained against finds in the "
        "scans themselves, how well it generalises (GVS, Fig. 8a); mean of pathological slices",
        3, "higher", ("own_found", "mask"), "slice", 1.0, headline=True, ranked=False,
        measure=lambda own_found, mask: dice(own_found, lesion=mask),
    ),
    Metric(
        "psnr_reconstruction", "reconstruction PSNR, dB",
        "what the method's way back makes of its image, against the input over head or body (PHS-GAN, Fig. 2); peak 1",
        2, "higher", ("reconstruction", "image", "foreground"), "slice", math.inf, IDENTICAL, ranked=False,
        measure=lambda reconstruction, image, foreground: psnr(reconstruction, image, mask=foreground),
    ),
    Metric(
        "dice_reconstruction", "lesion in the reconstruction, Dice",
        "2 |P ∩ L| / (|P| + |L|) of the lesion that the evaluation segmentor finds in the reconstruction: low where "
        "the way back puts the lesion elsewhere, or nowhere (PHS-GAN, Fig. 2); mean of slices",
        3, "higher", ("found_again", "mask"), "slice", 1.0, ranked=False,
        measure=lambda found_again, mask: dice(found_again, lesion=mask),
    ),
    Metric(
        "psnr_slice", "whole slice PSNR, dB",
        "against the input over the whole slice, background and lesion included, which should change",
        2, "higher", ("twin", "image"), "slice", math.inf, IDENTICAL, ranked=False,
        measure=lambda twin, image: psnr(twin, reference=image),
    ),
    Metric(
        "ssim_slice", "whole slice SSIM",
        "against the input over the whole slice, background and lesion included, which should change",
        4, "higher", ("twin", "image"), "slice", 1.0, IDENTICAL, ranked=False,
        measure=lambda twin, image: ssim(twin, reference=image),
    ),
)  # fmt: skip

SEGMENTATION = (
    Metric(
        "dice_pooled", "Dice, all slices pooled", "2 |P ∩ L| / (|P| + |L|) over the pixels of all slices together",
        3, "higher", ("prediction", "mask"), "pooled", 1.0, headline=True, measure=_overlap_counts, combine=_dice,
    ),
    Metric(
        "dice", "Dice of a volume",
        "2 |P ∩ L| / (|P| + |L|) over the pixels of a volume; without value where neither has any",
        3, "higher", ("prediction", "mask"), "volume", 1.0, headline=True, measure=_overlap_counts, combine=_dice,
    ),
    Metric(
        "dice_of_kind", "Dice of the scan's kind of lesion",
        "2 |P ∩ L| / (|P| + |L|) of what was found of the kind that the cohort says the scan's lesions are of, where a "
        "bundle tells several; the Dice of a volume counts what was taken for another kind, too",
        3, "higher", ("of_its_kind", "mask"), "volume", 1.0, measure=_overlap_of_kind, combine=_dice_of_kind,
    ),
    Metric(
        "recall", "recall of a volume", "|P ∩ L| / |L|, the share of the lesion that was found; the sensitivity",
        3, "higher", ("prediction", "mask"), "volume", 1.0, measure=_overlap_counts,
        combine=lambda rows: _ratio(rows["overlap_pixels"].sum(), rows["lesion_pixels"].sum()),
    ),
    Metric(
        "precision", "precision of a volume", "|P ∩ L| / |P|, the share of what was found that is lesion",
        3, "higher", ("prediction", "mask"), "volume", 1.0, measure=_overlap_counts,
        combine=lambda rows: _ratio(rows["overlap_pixels"].sum(), rows["predicted_pixels"].sum()),
    ),
    Metric(
        "hd95_mm", "HD95, mm",
        "95th percentile of the distances between the outlines within a slice, the larger of both directions; of "
        "slices in which a lesion is annotated and one was found",
        1, "lower", ("prediction", "mask", "spacing_mm"), "slice", 0.0,
        measure=lambda prediction, mask, spacing_mm: hd95(prediction, lesion=mask, spacing_mm=spacing_mm),
    ),
    Metric(
        "holes", "holes in a slice",
        "regions that the found lesion of a slice encloses and that are annotated lesion; of slices in which one was "
        "found",
        2, "lower", ("prediction", "mask"), "slice", 0.0,
        measure=lambda prediction, mask: holes(prediction, lesion=mask),
    ),
    Metric(
        "fragments", "fragments in a slice",
        "pieces of the found lesion of a slice beyond one for each annotated lesion that they touch; of slices in "
        "which one was found",
        2, "lower", ("prediction", "mask"), "slice", 0.0,
        measure=lambda prediction, mask: fragments(prediction, lesion=mask),
    ),
    Metric(
        "volume_error_ml", "error of the lesion volume, ml",
        "|predicted − annotated| volume of the lesions of a scan, in the slices of the slab",
        2, "lower", ("prediction", "mask", "voxel_ml"), "volume", 0.0, measure=_volumes,
        combine=lambda rows: abs(float(rows["predicted_ml"].sum() - rows["lesion_ml"].sum())),
    ),
)  # fmt: skip

SCORING = (
    Metric(
        "absolute_error", "absolute error", "|predicted − target| of a scan, in the target's unit; its mean is the MAE",
        3, "lower", ("prediction", "target"), "volume", 0.0, headline=True, measure=_scored,
        combine=lambda rows: float(abs(rows["prediction"] - rows["target"]).mean()),
    ),
    Metric(
        "squared_error", "squared error", "(predicted − target)² of a scan, in the square of the target's unit",
        3, "lower", ("prediction", "target"), "volume", 0.0, measure=_scored,
        combine=lambda rows: float(((rows["prediction"] - rows["target"]) ** 2).mean()),
    ),
    Metric(
        "r2", "R², all scans pooled",
        "1 − Σ (predicted − target)² / Σ (target − its mean over these scans)²; 0 or less is no better than their mean",
        3, "higher", ("prediction", "target"), "pooled", 1.0, headline=True, measure=_scored, combine=_r2,
    ),
    Metric(
        "correlation", "correlation, all scans pooled",
        "Pearson's, of predicted and target; it does not see an offset or a scale",
        3, "higher", ("prediction", "target"), "pooled", 1.0, measure=_scored, combine=_correlation,
    ),
    Metric(
        "accuracy", "accuracy", f"share of scans, or of single slices, whose class is told right, at a score of {HALF}",
        3, "higher", ("prediction", "label"), "volume", 1.0, headline=True, measure=_classified,
        combine=lambda rows: float(((rows["prediction"] >= HALF) == (rows["label"] >= HALF)).mean()),
    ),
    Metric(
        "auroc", "AUROC, all pooled",
        "probability that a scan, or slice, of class 1 has a higher score than one of class 0; equal scores count half",
        3, "higher", ("prediction", "label"), "pooled", 1.0, headline=True, measure=_classified, combine=_auroc,
    ),
)  # fmt: skip

MODALITY = (
    Metric(
        "psnr_target", "PSNR against the target, dB",
        "of the translated or restored image against the person's own image of the target modality, or what it was "
        "before it was degraded, over head or body; peak 1",
        2, "higher", ("translated", "target_image", "foreground"), "slice", math.inf, headline=True,
        measure=lambda translated, target_image, foreground: psnr(translated, reference=target_image, mask=foreground),
    ),
    Metric(
        "ssim_target", "SSIM against the target", "the same; windows see head or body only",
        4, "higher", ("translated", "target_image", "foreground"), "slice", 1.0, headline=True,
        measure=lambda translated, target_image, foreground: ssim(translated, reference=target_image, mask=foreground),
    ),
    Metric(
        "contrast_error", "error of the lesion contrast, % of the window",
        f"|c of the translation − c of the target|, c = mean of the lesion − mean of the tissue {MARGIN_MM:g} to "
        f"{AROUND_MM:g} mm around it in the slice; that of an image that shows no lesion is |c of the target|",
        2, "lower", ("translated", "target_image", "mask", "foreground", "spacing_mm"), "volume", 0.0, factor=100,
        headline=True, measure=paired_contrast_sums, combine=contrast_error,
    ),
)  # fmt: skip

METRICS: dict[str, Metric] = {metric.name: metric for metric in (*TRANSLATION, *SEGMENTATION, *SCORING, *MODALITY)}

# Measured by training segmentors on all images of a row together, so that no volume has one (`evaluation.bracketed`).
A_DICE = Metric(
    "a_dice", "A-Dice",
    "how fast a segmentor learns to find the original lesions in these images (GVS, Eq. 8): its Dice on the slices "
    "that it is trained on, mean over epochs",
    3, "lower", ("twin", "mask"), "pooled", 0.0, headline=True,
)  # fmt: skip
