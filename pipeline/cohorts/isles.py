"""ISLES 2015 (VSD folders) and 2022 (rawdata and derivatives)."""

from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import by_session, plain_else_all, with_suffix
from pipeline.cohorts.vsd import vsd_cases


@register(
    "isles",
    "1/VSD.Brain.XX.O.MR_Flair.70613/ and 1/VSD.Brain.XX.O.OT.70614/, or "
    "rawdata/sub-01/ses-01/sub-01_ses-01_dwi.nii.gz and derivatives/sub-01/ses-01/sub-01_ses-01_msk.nii.gz",
)
def isles(cohort: Path, modality: str | None) -> list[Entry]:
    """Cases of 2015, else sessions of 2022."""
    return vsd_cases(cohort, (modality or "Flair",), brats=False) or _isles_2022(cohort, modality or "dwi")


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
