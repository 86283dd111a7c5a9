"""LiTS: volume-<n> and segmentation-<n>, or liver_<n> of the Medical Segmentation Decathlon."""

import re
from collections import defaultdict
from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import folders, niftis
from pipeline.errors import UsageError
from pipeline.scans.nifti import stem


@register("lits", "volume-0.nii and segmentation-0.nii, or imagesTr/liver_0.nii.gz and labelsTr/liver_0.nii.gz")
def lits(cohort: Path, modality: str | None) -> list[Entry]:
    """Volumes and segmentations of the same number, wherever they lie."""
    if modality is not None and modality.casefold() != "ct":
        raise UsageError(f"{modality}: no modality of LiTS, expected CT; leave the modality out")
    images: dict[str, list[Path]] = defaultdict(list)
    masks: dict[str, list[Path]] = defaultdict(list)
    for folder in [cohort, *folders(cohort, depth=2)]:
        for path in niftis(folder):
            kind, _, number = stem(path).partition("-")
            if kind in {"volume", "segmentation"} and number.isdecimal():
                (images if kind == "volume" else masks)[f"volume-{number}"].append(path)
            elif re.fullmatch(r"liver_\d+", stem(path)) and folder.name in {"imagesTr", "labelsTr"}:
                (images if folder.name == "imagesTr" else masks)[stem(path)].append(path)
    return [
        Entry(
            name=name,
            place=cohort,
            images=images.get(name, []),
            masks=masks.get(name, []),
            image_hint=f"imagesTr/{name}.nii.gz" if name.startswith("liver") else f"{name}.nii",
            mask_hint=(
                f"labelsTr/{name}.nii.gz"
                if name.startswith("liver")
                else f"{name.replace('volume', 'segmentation')}.nii"
            ),
            lesion_labels=(2,),
        )
        for name in sorted(images.keys() | masks.keys())
    ]
