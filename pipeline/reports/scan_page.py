"""One HTML page for one scan: what the network changed, in pictures and numbers, and how to cite it."""

import json
from collections.abc import Iterator, Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from pipeline.reports.histogram import Chart, chart
from pipeline.reports.html import render
from pipeline.reports.plane import (
    AXIAL,
    CORONAL,
    SAGITTAL,
    Plane,
    body_to_mm,
    obliquity_degrees,
    orientation_known,
)
from pipeline.reports.slice_view import CHANGE_COLOURS, FULL_CHANGE, FULL_UNCERTAINTY, HEAT_COLOURS, slice_view
from pipeline.reports.survey import Survey, survey
from pipeline.reports.viewer import embedded_nifti

if TYPE_CHECKING:  # that room writes these pages
    from pipeline.inference.translator import Twin

# Slices of each plane. Residual methods work on axial ones; the others show steps between them.
SHOWN = {AXIAL: 6, CORONAL: 3, SAGITTAL: 3}
# Of the window: a difference that counts as changed, and the least that the viewer colours.
LEAST_CHANGE = 0.1
# Voxels so much longer than wide look like blocks.
THICK = 2.0
OBLIQUE_DEGREES = 2.0
LARGE_PAGE_MB = 30
# What the page says elsewhere than in its table.
TOLD = {
    *("Description", "Change", "Warnings", "Notes", "Uncertainty"),
    *("Methods", "References", "Citations", "Page", "Errors", "Request"),
}


def scan_page(
    twin: "Twin",
    title: str,
    sidecar: Mapping[str, Any],
    lesion: NDArray[np.bool_],
    uncertainty: NDArray[np.float32] | None = None,
    viewer: bool = False,
) -> str:
    """The page: complete in itself, readable without a network and without JavaScript.

    Args:
        twin: the scan and its pseudo-healthy twin.
        title: the scan's name.
        sidecar: content of the sidecar that is written beside the twin.
        lesion: what the method took for disease, bool, shape (X, Y, Z).
        uncertainty: standard deviation of the change, in scan units, float32, shape (X, Y, Z).
        viewer: embed the volumes and niivue for looking at all of them in three planes.

    Returns:
        HTML.
    """
    found = survey(twin, lesion)
    views = {
        plane: {
            place: slice_view(plane, place, twin, lesion, uncertainty, found)
            for place in found.places(plane.through, count)
        }
        for plane, count in SHOWN.items()
    }
    return render(
        "scan_page.html",
        title=title,
        description=str(sidecar["Description"]).rstrip("."),
        warnings=sidecar["Warnings"],
        notes=[_sentence(note) for note in sidecar["Notes"]],
        errors=sidecar.get("Errors", []),
        facts=_facts(sidecar, twin.window.width),
        convention=_convention(twin),
        change_full=_full(FULL_CHANGE, twin),
        change_colours=[_css(CHANGE_COLOURS[index]) for index in (0, len(CHANGE_COLOURS) // 2, -1)],
        uncertainty_full=None if uncertainty is None else _full(FULL_UNCERTAINTY, twin),
        uncertainty_colours=[_css(colour) for colour in HEAT_COLOURS],
        planes=[
            {
                "title": f"{plane.name.capitalize()} slices",
                "remark": _remark(plane, twin),
                "views": list(views[plane].values()),
            }
            for plane in SHOWN
        ],
        flicker=[views[plane][found.peak(plane.through)] for plane in SHOWN],
        charts=_charts(twin, found),
        settings=list(_settings(sidecar)),
        methods=sidecar["Methods"],
        references=sidecar["References"],
        viewer=_viewer(twin, found) if viewer else None,
    )


def _charts(twin: "Twin", found: Survey) -> list[Chart]:
    voxel_ml = float(np.prod(twin.scan.spacing_mm)) / 1000
    return [
        chart(title, found.edges, before * voxel_ml, after * voxel_ml, twin.window.high)
        for title, (before, after) in (
            ("All tissue that could be edited", found.tissue),
            ("What the method took for disease", found.lesion),
        )
        if before.any()
    ]


def _css(colour: NDArray[np.uint8]) -> str:
    return "rgb({},{},{})".format(*colour)


def _full(share: float, twin: "Twin") -> str:
    return f"{100 * share:g} % of the window ({share * twin.window.width:.4g} in the scan's units)"


def _remark(plane: Plane, twin: "Twin") -> str:
    if plane is AXIAL:
        return ""
    _, *pixel_mm = plane.spacing_mm(twin.scan)
    return (
        "The network works on axial slices one by one: steps between them show here. Dashed lines are the ends of what "
        "was edited."
        + (" The scan's own slices are thick, which shows as blocks." if max(pixel_mm) > THICK * min(pixel_mm) else "")
    )


def _convention(twin: "Twin") -> str:
    text = (
        "Radiological convention: the person's right (R) is at the left of axial and coronal pictures, and sagittal "
        "ones look to the left. Pixels have their size in millimetres. Slices are counted from the feet, the back and "
        "the left."
    )
    if not orientation_known(twin.scan):
        text += (
            " The header does not say which side is which: the letters, marked with a question mark, are NIfTI's "
            "default and may be wrong."
        )
    angle = obliquity_degrees(twin.scan)
    if angle > OBLIQUE_DEGREES:
        text += f" The scan is oblique, up to {angle:.0f}° off the body's axes; the letters name the closest ones."
    return text


def _facts(sidecar: Mapping[str, Any], window_width: float) -> list[tuple[str, str, str]]:
    change = sidecar["Change"]
    darker, brighter = (f"{change[name]:.1f}" for name in ("RemovedMl", "AddedMl"))
    facts = [
        (
            "Changed",
            f"{change['ChangedMl']:.1f} ml",
            f"{change['ChangedPercent']:.2f} % of the edited tissue; {darker} ml darker, {brighter} ml brighter",
        ),
        ("Taken for disease", f"{change['LesionMl']:.1f} ml", "by the method; outlined in the pictures"),
        (
            "Mean change",
            f"{100 * change['MeanAbsoluteChange']:.2f} %",
            "of the intensity window, in the edited tissue",
        ),
        ("Edited tissue", f"{change['EditedMl']:.0f} ml", "where the method was allowed to change the scan"),
        ("Bundle", str(sidecar["Bundle"]), f"version {sidecar['BundleVersion']}"),
    ]
    spread = sidecar["Uncertainty"]
    if spread is not None:
        where = "in the edited tissue"
        if spread["LesionMean"] is not None:
            where += f"; {100 * spread['LesionMean'] / window_width:.2f} % in what was taken for disease"
        facts.append(("Uncertainty", f"{100 * spread['Mean'] / window_width:.2f} %", f"of the window, {where}"))
    return facts


def _settings(sidecar: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The rest of the sidecar, nested values as `Outer: Inner`; of the request, what is not said before."""
    yield from _flat({key: value for key, value in sidecar.items() if key not in TOLD})
    told = {key: value for key, value in sidecar.get("Request", {}).items() if sidecar.get(key) != value}
    if told:
        yield from _flat(told)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{name}: {key}" if name else str(key))
    elif isinstance(value, (list, tuple)) and any(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value, 1):
            yield from _flat(item, f"{name} {number}" if len(value) > 1 else name)
    elif isinstance(value, (list, tuple)):
        yield name, ", ".join(map(_plain, value)) or "none"
    else:
        yield name, _plain(value)


def _plain(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _sentence(note: str) -> str:
    """As a sentence: notes are written to follow a file's name and a colon."""
    return note[:1].upper() + note[1:] + ("" if note.endswith((".", "!", "?")) else ".")


def _viewer(twin: "Twin", found: Survey) -> dict[str, Any]:
    volumes = {
        "input": embedded_nifti(twin.scan.stored, twin.scan),
        "twin": embedded_nifti(twin.stored, twin.scan),
        "anomaly": embedded_nifti(twin.stored_anomaly, twin.scan, difference=True),
    }
    look = {
        "low": twin.window.low,
        "high": twin.window.high,
        "least": LEAST_CHANGE * twin.window.width,
        "full": FULL_CHANGE * twin.window.width,
        "at": body_to_mm(twin.scan, *(found.peak(axis) for axis in range(3))),
    }
    assets = resources.files("pipeline.reports") / "assets"
    megabytes = sum(map(len, volumes.values())) / 1e6
    return {
        **volumes,
        "megabytes": f"{megabytes:.0f}",
        "large": megabytes > LARGE_PAGE_MB,
        "look": json.dumps(look),
        "niivue": Markup((assets / "niivue.umd.js").read_text(encoding="utf-8")),  # noqa: S704  # our own asset
        "licence": Markup((assets / "niivue.LICENSE").read_text(encoding="utf-8")),  # noqa: S704
    }
