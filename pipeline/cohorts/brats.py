"""BraTS: [<group>/]<id>/<id>_flair or <id>-t2f, with <id>_seg or <id>-seg beside it; VSD folders up to 2015."""

import itertools
from collections import defaultdict
from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import folders, niftis
from pipeline.cohorts.vsd import vsd_cases
from pipeline.errors import UsageError
from pipeline.scans.nifti import stem

# BraTS names each sequence one way up to 2020 and another way from 2023; "t1w" is the name that BIDS gives.
BRATS_MODALITIES = {
    "flair": ("flair", "t2f"),
    "t1": ("t1", "t1n", "t1w"),
    "t1ce": ("t1ce", "t1c"),
    "t2": ("t2", "t2w"),
}

# And VSD another one again.
VSD = {"t1ce": ("t1c",)}


@register("brats", "ID/ID_flair.nii.gz and ID/ID_seg.nii.gz, or ID/ID-t2f.nii.gz and ID/ID-seg.nii.gz")
def brats(cohort: Path, modality: str | None) -> list[Entry]:
    """Each folder whose files begin with its own name."""
    asked = (modality or "flair").casefold()
    names = next((names for names in BRATS_MODALITIES.values() if asked in names), None)
    if names is None:
        known = ", ".join(itertools.chain.from_iterable(BRATS_MODALITIES.values()))
        raise UsageError(f"{modality}: no modality of BraTS, expected one of {known}; choose one of them")
    sequences = set(itertools.chain.from_iterable(BRATS_MODALITIES.values()))

    entries = []
    for folder in folders(cohort, depth=2):
        parts: dict[str, list[Path]] = defaultdict(list)
        for path in niftis(folder):
            name = stem(path)
            if name.startswith((f"{folder.name}_", f"{folder.name}-")):
                parts[name[len(folder.name) + 1 :].casefold()].append(path)
        if sequences.isdisjoint(parts) and "seg" not in parts:
            continue
        entries.append(
            Entry(
                name=folder.name,
                place=folder,
                images=list(itertools.chain.from_iterable(parts[name] for name in names if name in parts)),
                masks=parts.get("seg", []),
                image_hint=f"{folder.name}_{names[0]}.nii.gz or {folder.name}-{names[1]}.nii.gz",
                mask_hint=f"{folder.name}_seg.nii.gz or {folder.name}-seg.nii.gz beside it",
                present=[path for name, paths in parts.items() if name != "seg" for path in paths],
            )
        )
    return entries or vsd_cases(cohort, tuple(dict.fromkeys((*names, *VSD.get(names[0], ())))), brats=True)
