"""Masks with the names and colours of their labels, in the forms that other viewers read."""

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import SimpleITK

from pipeline.files import write_text, written_aside
from pipeline.reports.slice_view import MASK_COLOURS
from pipeline.scans import read_nifti, stem
from pipeline.scans.lps import RAS_FROM_LPS

MASK = re.compile(r"(?P<of>.*)_label-(?P<label>[A-Za-z0-9]+)(?:_desc-(?P<desc>[A-Za-z0-9]+))?_mask\.nii\.gz")
# How much of a mask is seen over the image.
OPACITY = 0.4


@dataclass(frozen=True)
class Mask:
    """A mask of ours.

    Attributes:
        path: of the NIfTI file.
        label: what it is a mask of, e.g. `lesion`.
        colour: red, green, blue from 0 to 255.
        image: the image that it is shown over; None if none of ours lies beside it.
    """

    path: Path
    label: str
    colour: tuple[int, int, int]
    image: Path | None


def masks_below(folder: Path) -> Iterator[Mask]:
    """The masks that commands wrote into a folder, each label with the colour that pages give it."""
    colours: dict[str, tuple[int, int, int]] = {}
    for path in sorted(folder.rglob("*_mask.nii.gz")):
        found = MASK.fullmatch(path.name)
        if found is None or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        label = found["label"]
        colours.setdefault(label, MASK_COLOURS[len(colours) % len(MASK_COLOURS)])
        suffix = f"_{found['desc']}" if found["desc"] else ""
        images = sorted(path.parent.glob(f"{_literal(found['of'])}_desc-*{suffix}.nii.gz"))
        yield Mask(path, label, colours[label], next(iter(images), None))


def _literal(name: str) -> str:
    """A name as a pattern that matches itself alone."""
    return re.sub(r"([\[*?])", r"[\1]", name)


def write_for(viewer: str, mask: Mask, folder: Path) -> tuple[Path, str]:
    """Write what a viewer needs to show a mask with its name and colour.

    Args:
        viewer: `slicer`, `itksnap`, `freeview` or `niivue`.
        mask: to show.
        folder: to write into.

    Returns:
        The file, and how the viewer is called with it.
    """
    name = stem(mask.path)
    # Names of files are the user's, or whoever's: no shell may read them as anything else.
    image = shlex.quote(str(mask.image or mask.path))
    if viewer == "slicer":
        path = folder / f"{name}.seg.nrrd"
        _write_seg_nrrd(path, mask)
        return path, f"Slicer {image} {shlex.quote(str(path))}"
    path = folder / {"itksnap": f"{name}.label", "freeview": f"{name}.lut.txt", "niivue": f"{name}.niivue.json"}[viewer]
    write_text(path, {"itksnap": _itksnap, "freeview": _freeview, "niivue": _niivue}[viewer](mask))
    called = {
        "itksnap": f"itksnap -g {image} -s {shlex.quote(str(mask.path))} -l {shlex.quote(str(path))}",
        "freeview": f"freeview -v {image} {shlex.quote(f'{mask.path}:colormap=lut:lut={path}:opacity={OPACITY}')}",
        "niivue": f"volume.setColormapLabel(await (await fetch({json.dumps(path.name)})).json())",
    }
    return path, called[viewer]


def _itksnap(mask: Mask) -> str:
    """A label description file: index, red, green, blue, opacity, visibility, mesh visibility, name."""
    red, green, blue = mask.colour
    return (
        "# ITK-SnAP Label Description File\n"
        "# IDX   -R-  -G-  -B-  -A--  VIS MSH  LABEL\n"
        '    0     0    0    0        0  0  0    "Clear Label"\n'
        f'    1   {red:3d}  {green:3d}  {blue:3d}        {OPACITY:g}  1  1    "{mask.label}"\n'
    )


def _freeview(mask: Mask) -> str:
    """A look-up table of FreeSurfer's form, whose last column is transparency."""
    red, green, blue = mask.colour
    return (
        "#No. Label Name:                  R   G   B   A\n"
        "0    Unknown                      0   0   0   0\n"
        f"1    {mask.label:<26} {red:3d} {green:3d} {blue:3d}   0\n"
    )


def _niivue(mask: Mask) -> str:
    """A label colour map of niivue."""
    red, green, blue = mask.colour
    table = {"R": [0, red], "G": [0, green], "B": [0, blue], "A": [0, round(255 * OPACITY)], "I": [0, 1]}
    return json.dumps({**table, "labels": ["", mask.label]}, indent=2) + "\n"


def _write_seg_nrrd(path: Path, mask: Mask) -> None:
    """A segmentation of 3D Slicer: a labelmap in LPS+ whose header names segment, value and colour."""
    scan = read_nifti(mask.path, constant_ok=True)
    lps = RAS_FROM_LPS @ scan.affine
    spacing = nib.affines.voxel_sizes(lps)
    # ITK counts axes from the slowest.
    image = SimpleITK.GetImageFromArray((scan.intensities() > 0).astype(np.uint8).T)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    last = [size - 1 for size in scan.shape]
    told = {
        "Segment0_ID": mask.label,
        "Segment0_Name": mask.label,
        "Segment0_NameAutoGenerated": "0",
        "Segment0_Color": " ".join(f"{value / 255:.6f}" for value in mask.colour),
        "Segment0_ColorAutoGenerated": "0",
        "Segment0_LabelValue": "1",
        "Segment0_Layer": "0",
        "Segment0_Extent": f"0 {last[0]} 0 {last[1]} 0 {last[2]}",
        "Segment0_Tags": "|",
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_SourceRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for key, value in told.items():
        image.SetMetaData(key, value)
    with written_aside(path) as aside:
        SimpleITK.WriteImage(image, str(aside), useCompression=True)
