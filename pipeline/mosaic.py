"""Pictures of slices: input, pseudo-healthy, difference, mask, side by side."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pipeline.files import written_aside

Pixel = TypeVar("Pixel", bound=np.generic)
TITLE_HEIGHT = 18
PANEL_PIXELS = 176
BORDER = 4  # pixels of air left around the body
LESION_COLOUR = (255, 196, 0)
OUTLINE = "yellow: border of the mask"  # of `LESION_COLOUR`


def grey(axial_slice: NDArray[np.floating], high: float = 1.0) -> NDArray[np.uint8]:
    """A slice in [0, high] as RGB (rows, columns, 3), seen as radiologists do: anterior up, right at the left."""
    levels = np.clip(axial_slice / high, 0, 1) * 255
    return np.repeat(_upright(levels)[..., None], 3, axis=2).astype(np.uint8)


def difference(change: NDArray[np.floating], full: float = 0.5) -> NDArray[np.uint8]:
    """Input − pseudo-healthy as RGB: what was taken away in orange, what was added in blue, nothing in black.

    Args:
        change: signed difference on [0, 1] images.
        full: the difference that is shown at full colour.
    """
    strength = _upright(np.clip(change / full, -1, 1))
    removed, added = np.maximum(strength, 0), np.maximum(-strength, 0)
    rgb = np.stack([removed, 0.45 * (removed + added), added], axis=2)
    return (rgb * 255).astype(np.uint8)


def outlined(axial_slice: NDArray[np.floating], mask: NDArray[np.generic]) -> NDArray[np.uint8]:
    """A grey slice with the mask's border drawn in yellow."""
    rgb = grey(axial_slice)
    inside = _upright(np.asarray(mask) != 0)
    padded = np.pad(inside, 1)
    core = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    rgb[inside & ~core] = LESION_COLOUR
    return rgb


def body_box(inside: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The box around all that is inside, with a border: a picture of air shows little.

    Args:
        inside: shape (right, anterior); all of it where nothing is.
    """
    if not inside.any():
        return slice(None), slice(None)
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) for axis in (1, 0))
    height, width = (slice(max(0, side[0] - BORDER), side[-1] + 1 + BORDER) for side in (rows, columns))
    return height, width


def square(panel: NDArray[np.uint8], spacing_mm: tuple[float, float]) -> NDArray[np.uint8]:
    """Repeat rows or columns of a panel so that anisotropic pixels are seen in proportion.

    Args:
        panel: shape (rows, columns, 3), upright.
        spacing_mm: pixel size of the slice along (right, anterior); rows run anterior, columns right.
    """
    right_mm, anterior_mm = spacing_mm
    smaller = min(spacing_mm)
    rows = np.arange(0, panel.shape[0], smaller / anterior_mm).astype(int)
    columns = np.arange(0, panel.shape[1], smaller / right_mm).astype(int)
    return panel[np.ix_(rows[rows < panel.shape[0]], columns[columns < panel.shape[1]])]


def mosaic(titles: Sequence[str], rows: Sequence[Sequence[NDArray[np.uint8]]], footer: str = "") -> Image.Image:
    """Rows of RGB panels under column titles, each panel scaled to the same box, pixels kept square.

    Args:
        titles: one for each column.
        rows: panels, each (height, width, 3); every row as long as `titles`.
        footer: what must not be overlooked, below, on as many lines as it needs. Where a border of `outlined` is in a
            panel, its colour is named too.
    """
    font = ImageFont.load_default(size=12)
    width = PANEL_PIXELS * len(titles)
    has_outline = any((panel == LESION_COLOUR).all(axis=-1).any() for row in rows for panel in row)
    below = _wrapped("; ".join(filter(None, (footer, OUTLINE * has_outline))), font, width - 8)
    top = TITLE_HEIGHT + PANEL_PIXELS * len(rows)
    canvas = Image.new("RGB", (width, top + TITLE_HEIGHT * len(below)))
    draw = ImageDraw.Draw(canvas)
    for column, title in enumerate(titles):
        draw.text((PANEL_PIXELS * column + 4, 2), title, fill="white", font=font)
    for line, row in enumerate(rows):
        for column, panel in enumerate(row):
            picture = Image.fromarray(panel)
            scale = PANEL_PIXELS / max(picture.size)
            size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
            picture = picture.resize(size, Image.Resampling.BILINEAR)
            x = PANEL_PIXELS * column + (PANEL_PIXELS - size[0]) // 2
            y = TITLE_HEIGHT + PANEL_PIXELS * line + (PANEL_PIXELS - size[1]) // 2
            canvas.paste(picture, (x, y))
    for line, text in enumerate(below):
        draw.text((4, top + TITLE_HEIGHT * line + 2), text, fill="white", font=font)
    return canvas


def save_png(path: Path, picture: Image.Image) -> None:
    """Write a picture as PNG, whole or not at all."""
    with written_aside(path) as aside:
        picture.save(aside, format="PNG", optimize=False)


def _wrapped(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def _upright(axial_slice: NDArray[Pixel]) -> NDArray[Pixel]:
    # (right, anterior) indices to picture rows and columns: anterior up, the person's right at the picture's left.
    return np.flip(axial_slice.T, axis=(0, 1))
