"""One slice in a report: input, synthetic image, difference and uncertainty, at one size in millimetres."""

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.mosaic import difference
from pipeline.reports.html import data_uri
from pipeline.reports.plane import AXIAL, RIGHT, SAGITTAL, SUPERIOR, Plane, orientation_known, outline
from pipeline.reports.survey import Survey, intensities

if TYPE_CHECKING:  # that room writes these pages
    from pipeline.inference.translator import Twin

# Of the window: the difference and the deviation at full colour, the same in every report.
FULL_CHANGE = 0.3
FULL_UNCERTAINTY = 0.1
# Longer sides are averaged down to it for the pictures, so that a page of large slices opens on any machine.
LONGEST_SIDE = 320
# Colours of 255 changes from all added to all removed, nothing in the middle (`difference` turns a line round).
CHANGE_COLOURS = difference(np.linspace(1, -1, 255)[:, None], full=1.0)[0]
# From certain to uncertain, at equal steps.
HEAT_COLOURS = np.array([(0, 0, 0), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.uint8)


def slice_view(
    plane: Plane,
    index: int,
    twin: "Twin",
    lesion: NDArray[np.bool_],
    uncertainty: NDArray[np.float32] | None,
    survey: Survey,
) -> dict[str, Any]:
    """What the template draws of one slice: a caption, letters, sizes in millimetres, and panels.

    Args:
        plane: which way it is cut.
        index: which slice across the plane.
        twin: the scan and its pseudo-healthy twin.
        lesion: what the method took for disease, bool, shape (X, Y, Z).
        uncertainty: standard deviation in scan units, float32, shape (X, Y, Z), or None.
        survey: of the twin; pictures are cut to its box.
    """
    scan, window = twin.scan, twin.window
    through_mm, row_mm, column_mm = plane.spacing_mm(scan)
    count, *lengths = plane.slices(scan, scan.stored).shape
    # Pictures run against the body's axes.
    box = tuple(
        slice(length - survey.box[axis].stop, length - survey.box[axis].start)
        for length, axis in zip(lengths, (plane.down, plane.across), strict=True)
    )

    def cut(voxels: NDArray[Any]) -> NDArray[Any]:
        cropped: NDArray[Any] = plane.slices(scan, voxels)[index][box]
        return cropped

    before, after = (intensities(scan, cut(voxels)) for voxels in (scan.stored, twin.stored))
    rows, columns = before.shape
    blocks = -(-columns // LONGEST_SIDE), -(-rows // LONGEST_SIDE)
    removed = cut(lesion)
    area_cm2 = int(removed.sum()) * row_mm * column_mm / 100
    found = f", {area_cm2:.1f} cm² taken for disease" if area_cm2 else ""
    name = f"{plane.name.capitalize()} slice {index + 1}"

    def panel(kind: str, title: str, picture: Image.Image, synthetic: bool = True) -> dict[str, Any]:
        border = "" if synthetic else outline(removed)
        return {
            "id": f"{plane.name}-{index}-{kind}",
            "title": title,
            "alt": f"{name}, {'SYNTHETIC ' if synthetic else ''}{title}{f'{found}, outlined' if border else ''}",
            "uri": data_uri(picture, synthetic),
            "synthetic": synthetic,
            "outline": border,
        }

    panels = [
        panel("input", "input", _grey(_reduced(window.apply(before), blocks)), synthetic=False),
        panel("twin", "pseudo-healthy", _grey(_reduced(window.apply(after), blocks))),
        panel("difference", "difference", _signed(_reduced((before - after) / np.float32(window.width), blocks))),
    ]
    if uncertainty is not None:
        deviation: NDArray[np.float32] = cut(uncertainty)
        deviation = _reduced(deviation / np.float32(window.width), blocks)
        panels.append(panel("uncertainty", "uncertainty", _heat(deviation)))
    return {
        "name": plane.name,
        "caption": f"{name} of {count}{_side(plane, index, survey, through_mm)}{found}",
        "ends": tuple(end if orientation_known(scan) else f"{end}?" for end in plane.ends),
        "width_mm": round(columns * column_mm, 3),
        "height_mm": round(rows * row_mm, 3),
        # The last averaged pixel may reach beyond the slice.
        "drawn_mm": tuple(
            round(-(-length // block) * block * size_mm, 3)
            for length, block, size_mm in zip((columns, rows), blocks, (column_mm, row_mm), strict=True)
        ),
        "pixel_mm": (round(column_mm, 5), round(row_mm, 5)),
        "slab_mm": _slab_ends(plane, survey, box[0].start, row_mm),
        "panels": panels,
    }


def _side(plane: Plane, index: int, survey: Survey, through_mm: float) -> str:
    if plane is not SAGITTAL:
        return ""
    middle = (survey.box[RIGHT].start + survey.box[RIGHT].stop - 1) / 2
    offset_mm = (index - middle) * through_mm
    return f", {abs(offset_mm):.0f} mm to the {'right' if offset_mm > 0 else 'left'} of the body's middle"


def _slab_ends(plane: Plane, survey: Survey, top: int, row_mm: float) -> list[float]:
    """Where slices that were edited meet others, in millimetres below the picture's top."""
    if plane is AXIAL:
        return []
    edited = survey.edited[SUPERIOR][::-1]
    return [round(float(row - top) * row_mm, 3) for row in np.flatnonzero(edited[1:] != edited[:-1]) + 1]


def _reduced(values: NDArray[np.float32], blocks: tuple[int, int]) -> NDArray[np.float32]:
    """Blocks of (columns, rows) averaged."""
    return values if blocks == (1, 1) else np.asarray(Image.fromarray(np.ascontiguousarray(values)).reduce(blocks))


def _grey(levels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.rint(levels * 255).astype(np.uint8))


def _signed(change: NDArray[np.float32]) -> Image.Image:
    middle = len(CHANGE_COLOURS) // 2
    return _coloured(middle + middle * np.clip(change / FULL_CHANGE, -1, 1), CHANGE_COLOURS)


def _heat(deviation: NDArray[np.float32]) -> Image.Image:
    steps = np.linspace(0, 255, len(HEAT_COLOURS))
    palette = np.stack([np.interp(np.arange(256), steps, channel) for channel in HEAT_COLOURS.T], axis=1)
    return _coloured(255 * np.clip(deviation / FULL_UNCERTAINTY, 0, 1), np.rint(palette).astype(np.uint8))


def _coloured(indices: NDArray[np.float32], palette: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(np.rint(indices).astype(np.uint8))
    picture.putpalette(palette.tobytes())
    return picture
