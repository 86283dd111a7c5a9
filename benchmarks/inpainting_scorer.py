"""The BraTS-inpainting challenge's scorer beside our metrics, on the same fills of the same lesions.

    pip install --no-deps inpainting    # the official scorer, AGPL; no dependency of the pipeline
    python benchmarks/inpainting_scorer.py COHORT

COHORT was made by `phs-pipeline preprocess` and has a healthy truth. Prints, for each fill, PSNR and SSIM of both: ours
computed by the challenge's conventions, which must agree, and as our tables have them. The conventions differ in this:
the challenge takes its intensity window from the scan without the lesion (percentiles 0.5 and 99.5), sets all outside
the lesion to zero before SSIM, takes SSIM in the first axis's planes, and its range from the data.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from inpainting.challenge_metrics_2023 import generate_metrics
from numpy.typing import NDArray
from torch import Tensor

from pipeline.evaluation.fills import FILLS
from pipeline.evaluation.predictions import of_volume
from pipeline.evaluation.scores import score_rows
from pipeline.evaluation.volumes import Volume, pathological_subjects, read_volume
from pipeline.metrics import METRICS
from pipeline.metrics.fidelity import psnr, ssim_map

SHOWN = ("ring mean", "harmonic in 3-D", "biharmonic")


def by_their_conventions(
    filled: NDArray[np.float32], truth: NDArray[np.float32], lesion: NDArray[np.bool_]
) -> dict[str, float]:
    """PSNR and SSIM with our functions, on volumes (right, anterior, slices)."""
    low, high = np.percentile(np.where(lesion, 0, truth), (0.5, 99.5))
    made, known = (
        torch.from_numpy(((np.where(lesion, image, 0).clip(low, high) - low) / (high - low)).astype(np.float32))[
            :, None
        ]
        for image in (filled, truth)
    )
    mask = torch.from_numpy(lesion)[:, None]
    span = max(float(image.max() - image.min()) for image in (made, known))
    similarity = ssim_map(made, known, data_range=span)
    inside = made[mask][None, None, None], known[mask][None, None, None]
    return {"psnr_01": float(psnr(*inside)), "ssim": float(similarity[mask].mean())}


def as_tables_have_them(volume: Volume, filled: Tensor) -> dict[str, float]:
    given = {**of_volume(volume).given, "twin": filled}
    metrics = [METRICS["psnr_lesion"], METRICS["ssim_lesion"]]
    rows = score_rows({}, volume.places, given, metrics)
    return {metric.name: float(np.nanmean([row[metric.name] for row in rows])) for metric in metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cohort", type=Path)
    parser.add_argument("--split", default="validation")
    parser.add_argument("--volumes", type=int, default=8, help="at most")
    given = parser.parse_args()
    apart: dict[str, list[float]] = {"psnr_01": [], "ssim": []}
    heads = [f"{metric + ' theirs':>12} {'ours':>8} {'table':>8}" for metric in ("PSNR", "SSIM")]
    print(f"{'scan':28} {'fill':16} {'   '.join(heads)}")
    for record in pathological_subjects(given.cohort, given.split)[: given.volumes]:
        volume = read_volume(given.cohort, record, "pathological", "healthy", "excluded")
        for name in SHOWN:
            made = FILLS[name].make(volume)
            lesion = volume.lesion[:, 0].numpy()
            # Their order of axes: right, anterior, slices.
            truth, filled, mask = (
                np.ascontiguousarray(np.moveaxis(array, 0, 2))
                for array in (volume.truth[:, 0].numpy(), made[:, 0].numpy(), lesion)
            )
            voided = torch.from_numpy(np.where(mask, 0, truth))[None]
            theirs = generate_metrics(
                torch.from_numpy(filled)[None], torch.from_numpy(truth)[None], voided, torch.from_numpy(mask)[None]
            )
            ours, table = by_their_conventions(filled, truth, mask), as_tables_have_them(volume, made)
            for metric, differences in apart.items():
                differences.append(abs(theirs[metric] - ours[metric]))
            print(
                f"{record.subject:28} {name:16} {theirs['psnr_01']:12.3f} {ours['psnr_01']:8.3f} "
                f"{table['psnr_lesion']:8.3f}   {theirs['ssim']:12.5f} {ours['ssim']:8.5f} {table['ssim_lesion']:8.5f}"
            )
    print(f"largest difference: PSNR {max(apart['psnr_01']):.2g} dB, SSIM {max(apart['ssim']):.2g}")


if __name__ == "__main__":
    main()
