"""A plain folder of scans of healthy people, without masks; only where the layout is named."""

from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import folders, niftis
from pipeline.scans.nifti import stem


@register("healthy", "a folder of scans of healthy people, without masks; by --layout healthy only")
def healthy(cohort: Path, modality: str | None) -> list[Entry]:
    """Each scan in the folder and below it; with a modality, those whose name holds it."""
    found = [path for folder in (cohort, *folders(cohort, depth=3)) for path in niftis(folder)]
    images = [path for path in found if modality is None or modality.casefold() in stem(path).casefold()]
    stems = [stem(path) for path in images]
    return [
        Entry(
            name=stem(path)
            if stems.count(stem(path)) == 1
            else "_".join((*path.relative_to(cohort).parent.parts, stem(path))),
            place=path,
            images=[path],
            masks=[],
            image_hint="a scan",
            mask_hint="none",
        )
        for path in images
    ]
