"""One HTML page for one scan: what was made of it, in pictures and numbers, and how to cite it."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

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
from pipeline.reports.slice_view import Layer, css, layers, slice_view
from pipeline.reports.survey import Survey, survey
from pipeline.reports.viewer import embedded_nifti

if TYPE_CHECKING:
    from pipeline.inference.products import Product, Result

# Slices of each plane. Most methods work on axial ones; the others show steps between them.
SHOWN = {AXIAL: 6, CORONAL: 3, SAGITTAL: 3}
# What the viewer begins with, of full brightness or colour: smaller differences would veil the scan.
LEAST_DIFFERENCE = 1 / 3
# Voxels so much longer than wide look like blocks.
THICK = 2.0
OBLIQUE_DEGREES = 2.0
LARGE_PAGE_MB = 30
# What the page says elsewhere than in its table.
TOLD = {
    *("Scan", "Product", "Pictured", "Description", "Figures", "Numbers", "Warnings", "Notes"),
    *("Methods", "References", "Citations", "Page", "Errors", "Request"),
}


@dataclass(frozen=True)
class ScanPage:
    """Makes the page of a scan: complete in itself, readable without a network and without JavaScript.

    Args:
        viewer: embed the volumes and niivue for looking at all of them in three planes.
    """

    viewer: bool = False

    def __call__(self, result: "Result", name: str, sidecar: Mapping[str, Any]) -> str:
        """The page, as HTML.

        Args:
            result: of the scan.
            name: the scan's.
            sidecar: content of the sidecar that is written beside the main product.
        """
        found = survey(result)
        shown = layers(result)
        views = {
            plane: {
                index: slice_view(plane, index, result, shown, found) for index in found.indices(plane.through, count)
            }
            for plane, count in SHOWN.items()
        }
        images, masks = result.pictured("image"), result.pictured("mask")
        return render(
            "scan_page.html",
            name=name,
            heading=result.main.heading,
            made=[product.heading for product in (*result.products, *result.shown)],
            description=_sentence(str(sidecar["Description"])),
            warnings=[_sentence(warning) for warning in sidecar["Warnings"]],
            notes=[_sentence(note) for note in sidecar["Notes"]],
            errors=sidecar.get("Errors", []),
            facts=list(_facts(result, sidecar)),
            convention=_convention(result),
            image=images[0].heading if images else None,
            masks=[mask.title for mask in masks],
            keys=[_key(layer, result) for layer in shown if layer.product.kind != "image"],
            planes=[
                {
                    "title": f"{plane.name.capitalize()} slices",
                    "remark": _remark(plane, result),
                    "views": list(views[plane].values()),
                }
                for plane in SHOWN
            ],
            flicker=[views[plane][found.peak(plane.through)] for plane in SHOWN] if images or masks else [],
            charts=list(_charts(result, found)),
            settings=list(_settings(sidecar)),
            methods=sidecar["Methods"],
            references=sidecar["References"],
            viewer=_viewer(result, shown, found) if self.viewer else None,
        )


def _charts(result: "Result", found: Survey) -> Iterator[Chart]:
    """Of an image, the intensities before and after; of a mask, those of the scan inside."""
    voxel_ml = result.scan.voxel_ml
    images, masks = result.pictured("image"), result.pictured("mask")
    counted = [("All tissue that could be edited", found.tissue)] if images and not found.is_masked else []
    counted += [(f"Inside the {mask.title}", found.masked) for mask in masks[:1]]
    for title, (before, after) in counted:
        if before.any():
            made = (images[0].heading, after * voxel_ml) if images else None
            yield chart(title, found.edges, before * voxel_ml, result.window.high, made)


def _key(layer: Layer, result: "Result") -> dict[str, Any]:
    """What the colours of a layer mean."""
    product = layer.product
    full = f"{layer.full:.4g} {_units(product)}".rstrip()
    if product.units == "scan":
        full = f"{100 * layer.full / result.window.width:.4g} % of the window ({layer.full:.4g} in the scan's units)"
    return {
        "kind": product.kind,
        "title": product.title,
        "meaning": product.meaning,
        "full": full,
        "colours": [css(colour) for colour in layer.colours],
    }


def _remark(plane: Plane, result: "Result") -> str:
    if plane is AXIAL:
        return ""
    _, *pixel_mm = plane.spacing_mm(result.scan)
    worked = "was edited" if result.pictured("image") else "was looked at"
    return (
        "Where a method works on axial slices one by one, steps between them show here. Dashed lines are the ends of "
        f"what {worked}."
        + (" The scan's own slices are thick, which shows as blocks." if max(pixel_mm) > THICK * min(pixel_mm) else "")
    )


def _convention(result: "Result") -> str:
    text = (
        "Radiological convention: the person's right (R) is at the left of axial and coronal pictures, and sagittal "
        "ones look to the left. Pixels have their size in millimetres. Slices are counted from the feet, the back and "
        "the left."
    )
    if not orientation_known(result.scan):
        text += (
            " The header does not say which side is which: the letters, marked with a question mark, are NIfTI's "
            "default and may be wrong."
        )
    angle = obliquity_degrees(result.scan)
    if angle > OBLIQUE_DEGREES:
        text += f" The scan is oblique, up to {angle:.0f}° off the body's axes; the letters name the closest ones."
    return text


def _facts(result: "Result", sidecar: Mapping[str, Any]) -> Iterator[tuple[str, str, str, str]]:
    """Label, value, units and detail of each number, and the bundle's name."""
    # What the main product means is the page's first sentence.
    meanings = {product.name: "" if product is result.main else product.meaning for product in result.products}
    for figure in result.figures:
        units = "" if figure.value is None else figure.units
        yield figure.label, figure.text, units, figure.detail or meanings.get(figure.name, "")
    described = {figure.name for figure in result.figures}
    for number in result.pictured("number"):
        if number.name not in described:
            yield number.title, f"{number.value:.4g}", _units(number), meanings.get(number.name, "")
    yield "Bundle", str(sidecar["Bundle"]), "", f"version {sidecar['BundleVersion']}"


def _units(product: "Product") -> str:
    return "" if product.units == "1" else product.units


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
    """As a sentence: notes and warnings are written to follow a file's name and a colon."""
    return note[:1].upper() + note[1:] + ("" if note.endswith((".", "!", "?")) else ".")


def _viewer(result: "Result", shown: list[Layer], found: Survey) -> dict[str, Any]:
    scan, window = result.scan, result.window
    scalings = {"image": (scan.slope, scan.intercept), "difference": (scan.slope, 0.0)}
    volumes = [embedded_nifti(scan.stored, scan, scalings["image"])]
    looks = [{"id": "input", "title": "input", "kind": "input", "low": window.low, "high": window.high}]
    for layer in shown:
        product = layer.product
        volumes.append(embedded_nifti(product.voxels, scan, scalings.get(product.kind, (1.0, 0.0))))
        ranges = {"image": (window.low, window.high), "difference": (LEAST_DIFFERENCE * layer.full, layer.full)}
        low, high = ranges.get(product.kind, (0.0, layer.full))
        looks.append(
            {
                "id": layer.key,
                "title": product.heading,
                "kind": product.kind,
                "low": low,
                "high": high,
                "colours": layer.colours.T.tolist(),
            }
        )
    assets = resources.files("pipeline.reports") / "assets"
    megabytes = sum(map(len, volumes)) / 1e6
    return {
        "volumes": [{**look, "data": data} for look, data in zip(looks, volumes, strict=True)],
        "megabytes": f"{megabytes:.0f}",
        "large": megabytes > LARGE_PAGE_MB,
        "look": json.dumps({"volumes": looks, "at": body_to_mm(scan, *(found.peak(axis) for axis in range(3)))}),
        "niivue": Markup((assets / "niivue.umd.js").read_text(encoding="utf-8")),  # noqa: S704  # our own asset
        "licence": Markup((assets / "niivue.LICENSE").read_text(encoding="utf-8")),  # noqa: S704
    }
