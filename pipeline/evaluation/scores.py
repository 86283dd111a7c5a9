"""From images to numbers: each slice, each volume, each method."""

import math
from typing import Any

import numpy as np
import pandas as pd
from torch import Tensor

from pipeline.evaluation.judge import SLICES_AT_ONCE, Judge
from pipeline.evaluation.volumes import Volume
from pipeline.metrics import healthiness_of_counts, identity, psnr, ssim

METRICS = (
    "psnr_normal",
    "ssim_normal",
    "psnr_slice",
    "ssim_slice",
    "identity",
    "psnr_lesion",
    "ssim_lesion",
)
KEYS = ["method", "patient", "subject"]

DEFINITIONS = {
    "psnr_normal, ssim_normal": (
        "against the input over normal tissue, the foreground outside the lesion (GVS, Section V.D); PSNR in dB, peak 1"
    ),
    "psnr_slice, ssim_slice": "against the input over the whole slice, lesion and background included",
    "identity": (
        "MS-SSIM of image and input with the lesion set to zero in both (PHS-GAN, Section 4.2); lesion and background "
        "agree for free"
    ),
    "psnr_lesion, ssim_lesion": "against the healthy truth inside the lesion, where a truth is known (phantoms)",
    "healthiness": (
        "1 − predicted / annotated lesion pixels (PHS-GAN, Section 4.2), predicted on the image by an independently "
        "trained segmentor; of each volume, and pooled over all slices; it may be negative and is not clipped"
    ),
    "mean, sd, n": (
        "each volume is the mean of its slices, each patient the mean of their volumes; mean and standard deviation "
        "(n − 1 in the denominator) run over patients; a slice without any pixel of the tissue that a metric is "
        "taken over has no value for it and enters no mean, and a patient with such slices only is not among the n"
    ),
    "identical": (
        "patients among the n in whom every slice equals its reference: their PSNR is infinite and outside mean and "
        "sd; within a volume, the mean PSNR runs over the slices that differ"
    ),
}


def score_slices(method: str, images: Tensor, volume: Volume, judge: Judge) -> list[dict[str, Any]]:
    """All metrics of each slice.

    Args:
        method: its name, for the table.
        images: pseudo-healthy images, shape (N, 1, H, W) in [0, 1], on the judge's device.
        volume: what they were made from.
        judge: f_pre.

    Returns:
        One row a slice: method, patient, subject, slice, `METRICS`, lesion_pixels, predicted_pixels. PSNR is `inf`
        where nothing differs. A metric is `nan` where no truth is known or no pixel is compared; from bad images it
        cannot come, since `Translator.residual` refuses those.
    """
    rows: list[dict[str, Any]] = []
    predicted = judge.predict(images, volume.spacing_mm)
    for first in range(0, len(images), SLICES_AT_ONCE):
        part = slice(first, first + SLICES_AT_ONCE)
        x, x_p, lesion, inside = (
            tensor[part].to(images.device) for tensor in (images, volume.image, volume.lesion, volume.foreground)
        )
        normal = inside & ~lesion
        columns = {
            "psnr_normal": psnr(x, x_p, normal),
            "ssim_normal": ssim(x, x_p, normal),
            "psnr_slice": psnr(x, x_p),
            "ssim_slice": ssim(x, x_p),
            "identity": identity(x, x_p, lesion),
        }
        if volume.truth is not None:
            truth = volume.truth[part].to(images.device)
            columns |= {"psnr_lesion": psnr(x, truth, lesion), "ssim_lesion": ssim(x, truth, lesion)}
        columns |= {
            "lesion_pixels": lesion.sum(dim=(1, 2, 3)),
            "predicted_pixels": predicted[part].sum(dim=(1, 2, 3)),
        }
        values = {name: column.tolist() for name, column in columns.items()}
        for row, place in enumerate(volume.places[part]):
            rows.append(
                {
                    "method": method,
                    "patient": volume.patient,
                    "subject": volume.subject,
                    "slice": place,
                    **dict.fromkeys(METRICS, math.nan),
                    **{name: value[row] for name, value in values.items()},
                }
            )
    return rows


def score_volumes(slices: pd.DataFrame) -> pd.DataFrame:
    """Each volume: the mean of its slices for each metric, its lesion pixels, and its healthiness.

    Args:
        slices: rows of `score_slices`.
    """
    groups = slices.groupby(KEYS, sort=False)
    volumes = groups[list(METRICS)].agg(_mean)
    volumes.insert(0, "slices", groups.size())
    pixels = groups[["lesion_pixels", "predicted_pixels"]].sum()
    volumes = volumes.join(pixels)
    counts = zip(volumes["predicted_pixels"], volumes["lesion_pixels"], strict=True)
    volumes["healthiness"] = [healthiness_of_counts(predicted, lesion) for predicted, lesion in counts]
    return volumes.reset_index()


def score_methods(volumes: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Each method: mean, standard deviation and number of patients for each metric, and pooled healthiness.

    Args:
        volumes: rows of `score_volumes`.

    Returns:
        By method `healthiness_pooled` and `metrics`: by metric `mean`, `sd`, `n`, `identical` as in `DEFINITIONS`; None
        where a number does not exist.
    """
    methods: dict[str, dict[str, Any]] = {}
    for name, rows in volumes.groupby("method", sort=False):
        patients = rows.groupby("patient", sort=False)[[*METRICS, "healthiness"]].agg(_mean)
        methods[str(name)] = {
            "healthiness_pooled": healthiness_of_counts(
                int(rows["predicted_pixels"].sum()), int(rows["lesion_pixels"].sum())
            ),
            "metrics": {metric: _over_patients(patients[metric]) for metric in patients.columns},
        }
    return methods


def _mean(values: pd.Series) -> float:
    """Mean of what is finite; `inf` if all that is known is infinite (identical images), `nan` if nothing is known.

    What is not known, `nan`, is left out: there was no pixel to compare (see `DEFINITIONS`).
    """
    known = values.dropna()
    finite = known[np.isfinite(known)]
    return float(finite.mean() if len(finite) else known.max())


def _over_patients(values: pd.Series) -> dict[str, float | int | None]:
    known = values.dropna()
    finite = known[np.isfinite(known)]
    return {
        "mean": float(finite.mean()) if len(finite) else None,
        "sd": float(finite.std(ddof=1)) if len(finite) > 1 else None,
        "n": len(known),
        "identical": len(known) - len(finite),
    }
