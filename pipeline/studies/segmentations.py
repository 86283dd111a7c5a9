"""What a segmentor finds with and without enhancement, to look at (GVS, Section V-G and Fig. 9)."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from torch import Tensor

from pipeline.evaluation import Judge
from pipeline.evaluation.volumes import Volume
from pipeline.files import table_csv, write_text
from pipeline.metrics import dice
from pipeline.mosaic import mosaic, save_png
from pipeline.studies.pictures import ROWS, shown_slices


def write_segmentations(
    path: Path, volumes: Sequence[tuple[Volume, Tensor]], plain: Judge, enhanced: Judge, alpha: float
) -> None:
    """Write a picture, and beside it as CSV the Dice of what it shows.

    Each patient is shown by the slice with the largest lesion; those of the lowest contrast, which enhancement is for,
    come first, and the rest is left out.

    Args:
        path: of the picture.
        volumes: slices with x_s − x_p, shape (N, 1, H, W).
        plain: segmentor trained on the slices as they are.
        enhanced: segmentor trained on enhanced ones.
        alpha: degree of their enhancement.
    """
    slices = []
    for shown in shown_slices([volume for volume, _ in volumes]):
        volume, residual = volumes[shown.volume]
        row = slice(shown.row, shown.row + 1)
        x_p, lesion = volume.image[row], volume.lesion[row]
        x_en = x_p - alpha * residual[row]
        normal = volume.foreground[row] & ~lesion
        contrast = abs(float(x_p[lesion].mean() - x_p[normal].mean())) if normal.any() else 0.0
        found = [judge.predict(x, volume.spacing_mm) for judge, x in ((plain, x_p), (enhanced, x_en))]
        image = x_en[0, 0].cpu().numpy()
        masks = [mask[0, 0].cpu().numpy() for mask in found]
        panels = [
            shown.panel(shown.image),
            shown.panel(image),
            shown.panel(shown.image, masks[0]),
            shown.panel(image, masks[1]),
            shown.panel(shown.image, shown.lesion),
        ]
        told = {
            "patient": volume.patient,
            "subject": volume.subject,
            "slice": volume.places[shown.row],
            "contrast": contrast,
            **{f"dice_alpha={a:g}": float(dice(mask, lesion)[0]) for a, mask in zip((0, alpha), found, strict=True)},
        }
        slices.append((contrast, told, panels))
    slices = sorted(slices, key=lambda each: each[0])[:ROWS]
    write_text(path.with_suffix(".csv"), table_csv(pd.DataFrame([told for _, told, _ in slices])))
    titles = [
        "input",
        f"enhanced, alpha = {alpha:g}",
        "found in the input",
        "found in the enhanced",
        "lesion annotation",
    ]
    save_png(path, mosaic(titles, [panels for *_, panels in slices], "lowest contrast first; not for diagnosis"))
