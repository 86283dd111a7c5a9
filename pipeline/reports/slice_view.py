"""One slice in a report: the input and what was made of it, side by side, at one size in millimetres."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from pipeline.mosaic import difference
from pipeline.reports.html import data_uri
from pipeline.reports.plane import AXIAL, RIGHT, SAGITTAL, SUPERIOR, Plane, orientation_known, outline
from pipeline.reports.survey import Survey, intensities

if TYPE_CHECKING:
    from pipeline.inference.products import Product, Result

# Of the window: the difference, and the value of a map in the scan's units, at full colour; the same in every report.
FULL_CHANGE = 0.3
FULL_MAP = 0.1
# Longer sides are averaged down to it for the pictures, so that a page of large slices opens on any machine.
LONGEST_SIDE = 320
LEVELS = 255  # of a picture's palette: an odd number has a middle
# All added, nothing, all removed (`difference` turns a line round).
CHANGE_COLOURS = difference(np.linspace(1, -1, 3)[:, None], full=1.0)[0]
# From nothing to full, at equal steps.
HEAT_COLOURS = np.array([(0, 0, 0), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)], dtype=np.uint8)
# Of the first mask, the second, and so on, and round again.
MASK_COLOURS = ((255, 196, 0), (86, 180, 233), (230, 97, 160), (0, 190, 130))


@dataclass(frozen=True)
class Layer:
    """A product that pictures show, and how.

    Args:
        key: for ids in the page: its kind and number.
        product: of a kind with voxels.
        full: of a difference or map, what has full colour, in the product's units.
        colours: RGB, shape (n, 3), at equal steps from the least value to full: of a difference from −full, else
            from 0.
        is_panel: whether it has a panel of its own: masks beside an image are outlined on the input alone.
    """

    key: str
    product: "Product"
    full: float
    colours: NDArray[np.uint8]
    is_panel: bool


def layers(result: "Result") -> list[Layer]:
    """What pictures show beside the input, in their order."""
    images, masks = result.pictured("image"), result.pictured("mask")
    grey = np.array([(0, 0, 0), (255, 255, 255)], dtype=np.uint8)
    found = [Layer(f"image{number}", image, 1.0, grey, True) for number, image in enumerate(images)]
    for number, each in enumerate(masks):
        colours = np.array([(0, 0, 0), MASK_COLOURS[number % len(MASK_COLOURS)]], dtype=np.uint8)
        found.append(Layer(f"mask{number}", each, 1.0, colours, not images))
    for number, each in enumerate(result.pictured("difference")):
        found.append(Layer(f"difference{number}", each, FULL_CHANGE * result.window.width, CHANGE_COLOURS, True))
    for number, each in enumerate(result.pictured("map")):
        found.append(Layer(f"map{number}", each, _full(each, result), HEAT_COLOURS, True))
    return found


def slice_view(plane: Plane, index: int, result: "Result", shown: list[Layer], survey: Survey) -> dict[str, Any]:
    """What the template draws of one slice: a caption, letters, sizes in millimetres, and panels.

    Args:
        plane: which way it is cut.
        index: which slice across the plane.
        result: of the scan.
        shown: its layers.
        survey: of it; pictures are cut to its box.
    """
    scan, window = result.scan, result.window
    through_mm, row_mm, column_mm = plane.spacing_mm(scan)
    count, *lengths = plane.slices(scan, scan.stored).shape
    # Pictures run against the body's axes.
    box = tuple(
        slice(length - survey.box[axis].stop, length - survey.box[axis].start)
        for length, axis in zip(lengths, (plane.down, plane.across), strict=True)
    )

    def cut(voxels: NDArray[Any]) -> NDArray[Any]:
        pixels: NDArray[Any] = plane.slices(scan, voxels)[index][box]
        return pixels

    before = intensities(scan, cut(scan.stored))
    rows, columns = before.shape
    blocks = -(-columns // LONGEST_SIDE), -(-rows // LONGEST_SIDE)
    name = f"{plane.name.capitalize()} slice {index + 1}"
    masks = [(layer, cut(layer.product.voxels) > 0) for layer in shown if layer.product.kind == "mask"]
    masks = [(layer, inside) for layer, inside in masks if inside.any()]
    found = "".join(
        f", {layer.product.title} {int(inside.sum()) * row_mm * column_mm / 100:.1f} cm²" for layer, inside in masks
    )

    def panel(key: str, title: str, picture: Image.Image, synthetic: bool = True) -> dict[str, Any]:
        borders = [] if synthetic else [(outline(inside), css(layer.colours[-1])) for layer, inside in masks]
        return {
            "id": f"{plane.name}-{index}-{key}",
            "title": title,
            "alt": f"{name}, {'SYNTHETIC ' if synthetic else ''}{title}{f'{found}, outlined' if borders else ''}",
            "uri": data_uri(picture, synthetic),
            "synthetic": synthetic,
            "outlines": borders,
        }

    panels = [panel("input", "input", _grey(_reduced(window.apply(before), blocks)), synthetic=False)]
    for layer in shown:
        if layer.is_panel:
            picture = _picture(layer, cut(layer.product.voxels), result, blocks)
            panels.append(panel(layer.key, layer.product.title, picture))
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


def css(colour: NDArray[np.uint8]) -> str:
    """A colour as style sheets write it."""
    return "rgb({},{},{})".format(*colour)


def _full(product: "Product", result: "Result") -> float:
    """The value of a map at full colour: fixed where pages can be compared, else its largest."""
    fixed = {"scan": FULL_MAP * result.window.width, "1": 1.0}
    return fixed.get(product.units) or float(product.voxels.max()) or 1.0


def _side(plane: Plane, index: int, survey: Survey, through_mm: float) -> str:
    if plane is not SAGITTAL:
        return ""
    middle = (survey.box[RIGHT].start + survey.box[RIGHT].stop - 1) / 2
    offset_mm = (index - middle) * through_mm
    return f", {abs(offset_mm):.0f} mm to the {'right' if offset_mm > 0 else 'left'} of the body's middle"


def _slab_ends(plane: Plane, survey: Survey, top: int, row_mm: float) -> list[float]:
    """Where slices of the region meet others, in millimetres below the picture's top."""
    if plane is AXIAL:
        return []
    inside = survey.region[SUPERIOR][::-1]
    return [round(float(row - top) * row_mm, 3) for row in np.flatnonzero(inside[1:] != inside[:-1]) + 1]


def _picture(layer: Layer, voxels: NDArray[Any], result: "Result", blocks: tuple[int, int]) -> Image.Image:
    """A slice of a product in the colours of its kind."""
    scan, kind = result.scan, layer.product.kind
    if kind == "image":
        return _grey(_reduced(result.window.apply(intensities(scan, voxels)), blocks))
    values = (voxels > 0 if kind == "mask" else voxels).astype(np.float32)
    if kind == "difference":
        values *= np.float32(scan.slope)
    share = _reduced(values / np.float32(layer.full), blocks)
    levels = (share + 1) / 2 if kind == "difference" else share
    steps = np.linspace(0, LEVELS - 1, len(layer.colours))
    palette = np.stack([np.interp(np.arange(LEVELS), steps, channel) for channel in layer.colours.T], axis=1)
    picture = Image.fromarray(np.rint((LEVELS - 1) * np.clip(levels, 0, 1)).astype(np.uint8))
    picture.putpalette(np.rint(palette).astype(np.uint8).tobytes())
    return picture


def _reduced(values: NDArray[np.float32], blocks: tuple[int, int]) -> NDArray[np.float32]:
    """Blocks of (columns, rows) averaged."""
    return values if blocks == (1, 1) else np.asarray(Image.fromarray(np.ascontiguousarray(values)).reduce(blocks))


def _grey(levels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.rint(levels * 255).astype(np.uint8))
