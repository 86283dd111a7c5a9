"""nnU-Net's raw data and the Medical Segmentation Decathlon: imagesTr, labelsTr and their `dataset.json`."""

import re
from collections import defaultdict
from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.description import read_description
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import niftis
from pipeline.scans.nifti import stem

CHANNEL = re.compile(r"(?P<case>.+)_(?P<number>\d{4})")


@register("nnunet", "imagesTr/CASE_0000.nii.gz and labelsTr/CASE.nii.gz, channels named in dataset.json")
def nnunet(cohort: Path, modality: str | None) -> list[Entry]:
    """Each case of the training folder; its channels are files of their own."""
    description = read_description(cohort / "dataset.json")
    images: dict[str, dict[int, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for path in niftis(cohort / "imagesTr"):
        if named := CHANNEL.fullmatch(stem(path)):
            images[named["case"]][int(named["number"])].append(path)
    if not images:
        return []
    wanted = description.channel(modality, cohort / "dataset.json")
    masks = _by_stem(cohort / "labelsTr")
    return [
        Entry(
            name=case,
            place=cohort / "imagesTr",
            images=images[case].get(wanted, []),
            masks=masks.get(case, []),
            image_hint=f"{case}_{wanted:04d}.nii.gz",
            mask_hint=f"labelsTr/{case}.nii.gz",
            present=[path for paths in images[case].values() for path in paths],
            lesion_labels=description.lesion_labels,
            notes=description.notes,
        )
        for case in sorted(images.keys() | masks.keys())
    ]


@register("msd", "imagesTr/BRATS_001.nii.gz and labelsTr/BRATS_001.nii.gz, modalities named in dataset.json")
def msd(cohort: Path, modality: str | None) -> list[Entry]:
    """Each case of a Decathlon task; its channels are the volumes of a 4-D file."""
    images, masks = _by_stem(cohort / "imagesTr"), _by_stem(cohort / "labelsTr")
    if not masks or any(CHANNEL.fullmatch(name) and name not in masks for name in images):
        return []
    description = read_description(cohort / "dataset.json")
    volume = description.channel(modality, cohort / "dataset.json") if len(description.channels) > 1 else None
    return [
        Entry(
            name=case,
            place=cohort / "imagesTr",
            images=images.get(case, []),
            masks=masks.get(case, []),
            image_hint=f"imagesTr/{case}.nii.gz",
            mask_hint=f"labelsTr/{case}.nii.gz",
            lesion_labels=description.lesion_labels,
            volume=volume,
            notes=description.notes,
        )
        for case in sorted(images.keys() | masks.keys())
    ]


def _by_stem(folder: Path) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in niftis(folder):
        found[stem(path)].append(path)
    return found
