"""Layouts of three challenges on white matter lesions: WMH 2017, MSSEG 2016 and ISBI 2015."""

import re
from collections import defaultdict
from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import folders, niftis
from pipeline.scans.nifti import stem

ISBI = re.compile(r"(?P<patient>(?:training|test)\d+)_(?P<visit>\d+)_(?P<kind>[a-z0-9]+)(?:_pp)?", re.IGNORECASE)


@register("wmh", "Utrecht/0/pre/FLAIR.nii.gz and Utrecht/0/wmh.nii.gz")
def wmh(cohort: Path, modality: str | None) -> list[Entry]:
    """Each subject of each site and scanner; in its mask, 1 is a white matter hyperintensity and 2 other pathology."""
    suffix = modality or "FLAIR"
    entries = []
    for folder in [cohort, *folders(cohort, depth=4)]:
        masks = [path for path in niftis(folder) if stem(path).casefold() == "wmh"]
        present = [path for path in niftis(folder / "pre") if not path.name.casefold().startswith("3dt1_mask")]
        if not masks and not (folder.name.isdecimal() and present):
            continue
        entries.append(
            Entry(
                name="_".join(folder.relative_to(cohort).parts) or folder.name,
                place=folder / "pre",
                images=[path for path in present if stem(path).casefold() == suffix.casefold()],
                masks=masks,
                image_hint=f"pre/{suffix}.nii.gz",
                mask_hint="wmh.nii.gz beside the folder pre",
                present=present,
                lesion_labels=(1,),
                patient="_".join(folder.relative_to(cohort).parts) or folder.name,
            )
        )
    return entries


@register(
    "msseg2016",
    "Center_01/Patient_01/Preprocessed_Data/FLAIR_preprocessed.nii.gz and Center_01/Patient_01/Masks/Consensus.nii.gz",
)
def msseg2016(cohort: Path, modality: str | None) -> list[Entry]:
    """Each patient with a consensus mask, which lies on the grid of the preprocessed images."""
    suffix = modality or "FLAIR"
    entries = []
    for folder in [cohort, *folders(cohort, depth=4)]:
        masks = [path for path in (*niftis(folder), *niftis(folder / "Masks")) if stem(path).casefold() == "consensus"]
        if not masks or folder.name == "Masks":
            continue
        present = [
            path
            for path in (*niftis(folder), *niftis(folder / "Preprocessed_Data"))
            if stem(path).casefold().endswith("_preprocessed")
        ]
        name = "_".join(folder.relative_to(cohort).parts) or folder.name
        entries.append(
            Entry(
                name=name,
                place=folder,
                images=[path for path in present if stem(path).casefold() == f"{suffix}_preprocessed".casefold()],
                masks=masks,
                image_hint=f"{suffix}_preprocessed.nii.gz",
                mask_hint="Masks/Consensus.nii.gz",
                present=present,
                patient=name,
            )
        )
    return entries


@register(
    "isbi2015",
    "training01/preprocessed/training01_01_flair_pp.nii and training01/masks/training01_01_mask1.nii",
)
def isbi2015(cohort: Path, modality: str | None) -> list[Entry]:
    """Each visit of each patient, preprocessed; of the two raters' masks the first is taken."""
    wanted = (modality or "flair").casefold()
    images: dict[tuple[str, str], dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for folder in folders(cohort, depth=4):
        if folder.name not in {"preprocessed", "masks"}:
            continue
        for path in niftis(folder):
            if named := ISBI.fullmatch(stem(path)):
                images[named["patient"], named["visit"]][named["kind"].casefold()].append(path)
    return [
        Entry(
            name=f"{patient}_{visit}",
            place=cohort / patient,
            images=kinds.get(wanted, []),
            masks=kinds.get("mask1", []) or kinds.get("mask2", []),
            image_hint=f"preprocessed/{patient}_{visit}_{wanted}_pp.nii",
            mask_hint=f"masks/{patient}_{visit}_mask1.nii",
            present=[path for kind, paths in kinds.items() if not kind.startswith("mask") for path in paths],
            patient=patient,
            session=visit,
            notes=("of the two raters' masks, the first was taken",) if {"mask1", "mask2"} <= kinds.keys() else (),
        )
        for (patient, visit), kinds in sorted(images.items())
    ]
