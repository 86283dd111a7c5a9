"""ISLES 2015 (VSD folders) and 2022 (rawdata and derivatives)."""

from collections import defaultdict
from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import by_session, folders, niftis, plain_else_all, with_suffix


@register(
    "isles",
    "1/VSD.Brain.XX.O.MR_Flair.70613/ and 1/VSD.Brain.XX.O.OT.70614/, or "
    "rawdata/sub-01/ses-01/sub-01_ses-01_dwi.nii.gz and derivatives/sub-01/ses-01/sub-01_ses-01_msk.nii.gz",
)
def isles(cohort: Path, modality: str | None) -> list[Entry]:
    """Cases of 2015, else sessions of 2022."""
    return _isles_2015(cohort, modality or "Flair") or _isles_2022(cohort, modality or "dwi")


def _isles_2015(cohort: Path, modality: str) -> list[Entry]:
    entries = []
    for folder in folders(cohort, depth=2):
        volumes: dict[str, list[Path]] = defaultdict(list)
        for volume in folders(folder):
            if volume.name.startswith("VSD.Brain"):
                volumes[volume.name.split(".")[-2].casefold()] += niftis(volume)
        if not volumes:
            continue
        entries.append(
            Entry(
                name=folder.name,
                place=folder,
                images=volumes.get(f"mr_{modality}".casefold(), []),
                masks=volumes.get("ot", []),
                image_hint=f"VSD.Brain.XX.O.MR_{modality}.<n>/*.nii",
                mask_hint="a folder VSD.Brain.XX.O.OT.<n> beside its folder",
                present=[path for kind, paths in volumes.items() if kind != "ot" for path in paths],
            )
        )
    return entries


def _isles_2022(cohort: Path, modality: str) -> list[Entry]:
    raw = cohort / "rawdata" if (cohort / "rawdata").is_dir() else cohort
    places = ("", "anat", "dwi")
    scans = by_session(raw, places)
    derived = by_session(cohort / "derivatives", places)
    masks = {name: with_suffix(paths, "msk") for name, paths in derived.items()}
    return [
        Entry(
            name=name,
            place=raw / name.replace("_", "/"),
            images=plain_else_all(with_suffix(scans.get(name, []), modality), {f"{name}_{modality}"}),
            masks=masks.get(name, []),
            image_hint=f"{name}_{modality}.nii.gz",
            mask_hint=f"derivatives/{name.replace('_', '/')}/{name}_msk.nii.gz",
            present=scans.get(name, []),
        )
        for name in sorted(scans.keys() | {name for name, paths in masks.items() if paths})
    ]
