"""What GenSeg makes of images with the target and without, to look at (GenSeg, Figs. 7 and 8)."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.bundles import Bundle, read_config
from pipeline.evaluation.volumes import HEALTHY, PATHOLOGICAL
from pipeline.inference import load_export, load_predictor
from pipeline.mosaic import difference, grey, mosaic, outlined, save_png
from pipeline.preprocessing.grid import Grid
from pipeline.preprocessing.half_slices import HalfSliceDataset, HalfSliceRule
from pipeline.studies.pictures import spread

Picture = NDArray[np.float32]
LEGEND = "SYNTHETIC - not for diagnosis; orange taken away, blue added"


@torch.inference_mode()
def write_translations(folder: Path, run: Bundle, cohort: Path, split: str, device: str) -> None:
    """Write `presence_to_absence.png` and `absence_to_presence.png`.

    The first has, for each channel, images with the target, their translation and what was taken away; then the mask
    that is found and the drawn one. The second has images without the target, each beside two translations, for which
    two unique codes are drawn.

    Args:
        folder: receives the pictures.
        run: a training of GenSeg.
        cohort: folder made by `preprocess`.
        split: whose images are shown.
        device: where to compute.
    """
    predictor, _ = load_predictor(run, "segmenter", device)
    absence, presence = (load_export(run, name).to(predictor.device).eval() for name in ("absence", "presence"))
    names, (presences, absences) = predictor.channels, domains(run, cohort, split)
    rows = []
    for x_P, drawn, in_range in _shown(presences):
        found = predictor.runner.network(x_P.to(predictor.device))[0, 0].cpu().numpy() > 0
        given, translated = in_range(x_P), in_range(absence(x_P.to(predictor.device)))
        panels = [panel for x, x_A in zip(given, translated, strict=True) for panel in (grey(x), *_change(x, x_A))]
        rows.append([*panels, outlined(given[0], found), outlined(given[0], drawn[0].numpy())])
    titles = [title for name in names for title in (f"{name}, presence", "absence", "taken away")]
    save_png(folder / "presence_to_absence.png", mosaic([*titles, "found", "drawn"], rows, LEGEND))
    torch.manual_seed(0)
    rows = []
    for x_A, _, in_range in _shown(absences):
        given, *twice = (in_range(x) for x in (x_A, *(presence(x_A.to(predictor.device)) for _ in range(2))))
        rows.append(
            [
                panel
                for channel, x in enumerate(given)
                for panel in (grey(x), *(part for x_P in twice for part in _change(x, x_P[channel])))
            ]
        )
    titles = [title for name in names for title in (f"{name}, absence", *("presence", "added") * 2)]
    save_png(folder / "absence_to_presence.png", mosaic(titles, rows, LEGEND))


def network_input(run: Bundle) -> tuple[Grid, list[str], HalfSliceRule]:
    """Grid, channels and, where that is of halves, the rule for them that a run was trained with."""
    settings = read_config(run.config("train"))
    grid = Grid(settings["spacing_mm"], tuple(settings["size"]), halves=settings["half_slices"])
    least = settings["half_slice_rule"]
    return grid, settings["channels"], HalfSliceRule(least["least_brain"], least["least_lesion"])


def domains(run: Bundle, cohort: Path, split: str) -> tuple[HalfSliceDataset, HalfSliceDataset]:
    """Images with the target, and without, as a run's network is shown them."""
    grid, channels, rule = network_input(run)
    presence = HalfSliceDataset(cohort, split, grid, (PATHOLOGICAL,), channels=channels, rule=rule)
    return presence, HalfSliceDataset(cohort, split, grid, (HEALTHY,), channels=channels, rule=rule, like=presence)


def _shown(images: HalfSliceDataset) -> Iterator[tuple[Tensor, Tensor, Callable[[Tensor], Picture]]]:
    """Some images (1, C, H, W) and masks (1, H, W), and what brings such images to [0, 1], as arrays (C, H, W)."""
    for index in spread(range(len(images))):
        sample = images[index]
        yield sample["image"][None], sample["mask"], partial(_in_range, images, index)


def _in_range(images: HalfSliceDataset, index: int, made: Tensor) -> Picture:
    picture: Picture = images.in_range(index, made[0].cpu()).numpy()
    return picture


def _change(x: Picture, to: Picture) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    return grey(to), difference(x - to)
