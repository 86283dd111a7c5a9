"""Volumes of the Virtual Skeleton Database: one folder each, in ISLES 2015 and BraTS 2013 to 2015 alike."""

import re
from collections import defaultdict
from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.tree import folders, niftis

# BraTS has T1 after contrast, which ISLES has not, and its cases are called so.
BRATS = re.compile(r"brats|(?:^|_)pat\d+", re.IGNORECASE)


def vsd_cases(cohort: Path, modalities: tuple[str, ...], brats: bool) -> list[Entry]:
    """Cases whose folders hold `VSD.Brain.XX.O.MR_<modality>.<n>/` and `VSD.Brain*.OT.<n>/`.

    Args:
        cohort: its folder.
        modalities: names of the sequence to take, the first for messages.
        brats: take the cases of BraTS, otherwise the others.
    """
    entries = []
    for folder in folders(cohort, depth=2):
        volumes: dict[str, list[Path]] = defaultdict(list)
        for volume in folders(folder):
            if volume.name.startswith("VSD.Brain"):
                volumes[volume.name.split(".")[-2].casefold()] += niftis(volume)
        if not volumes or bool(BRATS.search(folder.name) or "mr_t1c" in volumes) is not brats:
            continue
        names = [f"mr_{modality}".casefold() for modality in modalities]
        entries.append(
            Entry(
                name=folder.name,
                place=folder,
                images=[path for name in names for path in volumes.get(name, [])],
                masks=volumes.get("ot", []),
                image_hint=f"VSD.Brain.XX.O.MR_{modalities[0]}.<n>/*.nii",
                mask_hint="a folder VSD.Brain.XX.O.OT.<n> beside its folder",
                present=[path for kind, paths in volumes.items() if kind != "ot" for path in paths],
            )
        )
    return entries
