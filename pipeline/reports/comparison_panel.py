"""Methods side by side on the same slices, as in Fig. 7 of GVS."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFont

from pipeline.comparison.compare import Report
from pipeline.errors import UsageError
from pipeline.evaluation.cases import best_median_worst
from pipeline.evaluation.controls import CONTROLS, untouched
from pipeline.evaluation.twins import FOLDER, Twins, read_twins
from pipeline.mosaic import PANEL_PIXELS, body_box, difference, grey, mosaic, outlined, square


@dataclass(frozen=True)
class ShownCase:
    """A slice to show; without `place`, the one with the volume's largest lesion."""

    title: str
    subject: str
    place: int | None = None


def choose_cases(report: Report, wanted: Sequence[str] = ()) -> list[ShownCase]:
    """What to show: the wanted slices, or best, median and worst volume by healthiness of the report's method.

    Args:
        report: the first of the comparison.
        wanted: `SUBJECT` or `SUBJECT:SLICE`, the slice by its index in the subject's slab.

    Raises:
        UsageError: if a subject is not in the report.
    """
    volumes = report.volumes[report.volumes["method"] == report.method]
    if wanted:
        return [_wanted(text, set(volumes["subject"])) for text in wanted]
    ordered = volumes.sort_values("healthiness", ascending=False, kind="stable")["subject"].tolist()
    chosen = best_median_worst(ordered).items()
    return [ShownCase(f"{title} of {report.method}", subject) for title, subject in chosen]


def panel(reports: Sequence[Report], cases: Sequence[ShownCase], controls: bool = False) -> Image.Image:
    """Blocks of two rows, one for each case: input and twins; lesion outlined and what each twin changed.

    Args:
        reports: one column each, after the input's.
        cases: one block each.
        controls: columns for the controls too; the untouched input is the first column.

    Raises:
        UsageError: if a report has no images, not those of the wanted slice, or other images than the first report.
    """
    for report in reports:
        if not (report.folder / FOLDER).is_dir():
            raise UsageError(
                f"{report.folder}: holds no folder {FOLDER}, expected the images of the evaluation; run `phs-pipeline "
                "evaluate` again, or give --no-panel"
            )
    blocks = [_block(case, reports, controls) for case in cases]
    canvas = Image.new("RGB", (blocks[0].width, sum(block.height for block in blocks)))
    top = 0
    for block in blocks:
        canvas.paste(block, (0, top))
        top += block.height
    return canvas


def _wanted(text: str, subjects: set[str]) -> ShownCase:
    if text in subjects:
        return ShownCase("chosen", text)
    subject, _, place = text.rpartition(":")
    if subject not in subjects or not place.isdecimal():
        raise UsageError(
            f"{text}: is no SUBJECT or SUBJECT:SLICE of the reports, expected a subject such as {min(subjects)}; "
            "patients.csv lists them"
        )
    return ShownCase("chosen", subject, int(place))


def _block(case: ShownCase, reports: Sequence[Report], controls: bool) -> Image.Image:
    volumes = [read_twins(report.folder / FOLDER / f"{case.subject}.npz") for report in reports]
    first = volumes[0]
    for report, volume in zip(reports, volumes, strict=True):
        if not (np.array_equal(volume.places, first.places) and np.array_equal(volume.image, first.image)):
            raise UsageError(
                f"{report.folder} and {reports[0].folder}: show other images of {case.subject}, expected the same; run "
                "`phs-pipeline evaluate` again on the same cohort"
            )
    row = _row(case, first)
    x_p, lesion, foreground = first.image[row], first.lesion[row], first.foreground[row]
    twins = {report.method: volume.twin[row] for report, volume in zip(reports, volumes, strict=True)}
    if controls:
        tensors = [torch.from_numpy(array)[None, None] for array in (x_p, lesion, foreground)]
        scored = {name for report in reports for name in report.controls}
        twins |= {
            name: make(*tensors)[0, 0].numpy()
            for name, make in CONTROLS.items()
            if name in scored and make is not untouched
        }

    body = body_box(foreground | lesion)

    def shown(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return square(picture, first.spacing_mm)

    above = [shown(grey(x_p[body])), *(shown(grey(x_s[body])) for x_s in twins.values())]
    beneath = [
        shown(outlined(x_p[body], lesion[body])),
        *(shown(difference((x_p - x_s)[body])) for x_s in twins.values()),
    ]
    healthiness = ", ".join(f"{report.method} {_healthiness(report, case.subject):.3f}" for report in reports)
    return mosaic(
        ["input", *(_synthetic(name) for name in twins)],
        [above, beneath],
        f"{case.title}: {case.subject}, slice {first.places[row]}; healthiness of the volume: {healthiness}; beneath "
        "each image what it changed, orange: removed, blue: added; not for diagnosis",
    )


def _row(case: ShownCase, volume: Twins) -> int:
    if case.place is None:
        return int(volume.lesion.sum(axis=(1, 2)).argmax())
    if case.place not in volume.places:
        raise UsageError(
            f"{case.subject}:{case.place}: is no pathological slice, expected one of "
            f"{', '.join(map(str, volume.places))}; choose another"
        )
    return int(np.flatnonzero(volume.places == case.place)[0])


def _healthiness(report: Report, subject: str) -> float:
    volumes = report.volumes
    return float(volumes[(volumes["method"] == report.method) & (volumes["subject"] == subject)]["healthiness"].iloc[0])


def _synthetic(name: str) -> str:
    """The title over a twin, cut to the panel's width; the word that matters comes first."""
    font = ImageFont.load_default(size=12)
    title = f"SYNTHETIC {name}"
    if font.getlength(title) <= PANEL_PIXELS - 8:
        return title
    while font.getlength(f"{title}…") > PANEL_PIXELS - 8:
        title = title[:-1]
    return f"{title}…"
