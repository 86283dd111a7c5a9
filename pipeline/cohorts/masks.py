"""The lesion mask that belongs to a scan, by the names of files alone; voxels and grids are looked at later."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pipeline.cohorts.bids import is_lesion, lesion_masks
from pipeline.cohorts.tree import folders, niftis
from pipeline.errors import UsageError
from pipeline.files import read_json
from pipeline.scans.contrast import named_contrast
from pipeline.scans.nifti import stem
from pipeline.scans.sources import Source

# What names of masks say beside what they are masks of.
ABOUT = ("label-", "desc-")
MASK_WORDS = frozenset({"mask", "msk", "roi", "seg", "dseg", "lesion", "lesions", "wmh"})
# Of a folder of masks, how deep: derivatives/manual/sub-01/ses-01/anat from the dataset's root.
DEPTH = 5


@dataclass(frozen=True)
class FoundMasks:
    """The lesion masks of scans.

    Attributes:
        sources: the scans that have one or, with the reason as their fault, several.
        masks: of each that has one.
        without: the scans that have none.
    """

    sources: list[Source]
    masks: dict[Source, Path]
    without: list[Source]


def find_masks(sources: Sequence[Source], folder: Path | None = None) -> FoundMasks:
    """The lesion masks of scans: those of a folder, or those that were drawn for the BIDS dataset of each scan.

    A mask belongs to a scan if it has the subject and session of the scan, and no entity or suffix that the scan
    lacks: `sub-01_run-2_label-lesion_mask` belongs to `sub-01_run-2_T1w` and not to `sub-01_run-1_T1w`,
    `sub-01_label-lesion_mask` to both, `sub-01_T1w_label-lesion_roi` to T1w scans alone. Of several, the one that says
    most is taken. In a dataset, masks lie beside the raw scans or in any derivative; those that a network of ours found
    are not among them.

    Args:
        sources: the scans.
        folder: of masks, named after the scans, or a BIDS derivative; None: in the scans' datasets.

    Raises:
        UsageError: if the folder holds no mask, a scan lies in no dataset to look in, or no scan has a mask.
    """
    given = None if folder is None else _masks_in(folder)
    found = FoundMasks([], {}, [])
    for source in sources:
        belonging = _belonging(source, _drawn(source) if given is None else given)
        if not belonging:
            found.without.append(source)
            continue
        if len(belonging) == 1:
            found.masks[source] = belonging[0]
            found.sources.append(source)
            continue
        fault = (
            f"{source.path}: has {len(belonging)} lesion masks that may be meant ({', '.join(map(str, belonging))}), "
            "expected one; keep one, or name it with --mask"
        )
        found.sources.append(replace(source, fault=fault))
    if not found.sources:
        where = "its dataset, nor in a derivative of it" if folder is None else f"{folder}"
        raise UsageError(
            f"{sources[0].path}: found no lesion mask of it in {where}, nor one of any other scan, expected a file "
            f"such as {_expected(sources[0])}; add it, or name one with --mask or a folder with --masks"
        )
    return found


def _masks_in(folder: Path) -> list[Path]:
    """What may be a lesion mask in a folder: whose name says so, or says nothing else than of what it is."""
    if not folder.is_dir():
        raise UsageError(f"{folder}: found no folder, expected one of lesion masks; check the path")
    masks = [
        path
        for place in (folder, *folders(folder, DEPTH))
        for path in niftis(place)
        if is_lesion(path) or not any(part.startswith(ABOUT) for part in stem(path).split("_"))
    ]
    if not masks:
        raise UsageError(
            f"{folder}: holds no lesion mask, expected files such as sub-01_label-lesion_mask.nii.gz; check the path"
        )
    return masks


def _drawn(source: Source) -> list[Path]:
    """The masks that were drawn for the session of a scan."""
    if source.dataset is None:
        raise UsageError(
            f"{source.path}: lies in no BIDS dataset to find its lesion mask in, expected --mask FILE or --masks DIR; "
            "give one of them"
        )
    session = [part for part in _parts(source.stem) if part.startswith(("sub-", "ses-"))]
    masks = lesion_masks(source.dataset).get("_".join(session), [])
    return [path for path in masks if read_json(path.with_name(f"{stem(path)}.json")).get("SyntheticData") is not True]


def _belonging(source: Source, masks: Sequence[Path]) -> list[Path]:
    """The masks of a scan, by those names that say most."""
    scan = _parts(source.stem)
    told: dict[Path, tuple[bool, int]] = {}
    for path in masks:
        of = [part for part in map(_of_what, _parts(stem(path))) if part]
        belongs = bool(of) and of[0] == scan[0] and set(of) <= set(scan) and _session(of) == _session(scan)
        if belongs and path.absolute() != source.path.absolute():
            told[path] = (is_lesion(path), len(of))
    most = max(told.values(), default=None)
    return [path for path, says in told.items() if says == most]


def _of_what(part: str) -> str:
    """A part of a mask's name as the scan has it; empty where it is about the mask.

    >>> [_of_what(part) for part in "sub-01_label-lesion_desc-FLAIR_mask".split("_")]
    ['sub-01', '', 'FLAIR', '']
    """
    if part.startswith("desc-") and named_contrast(part.removeprefix("desc-")):  # which of the scans, as in ours
        return part.removeprefix("desc-")
    return "" if part.startswith(ABOUT) or part.casefold() in MASK_WORDS else part


def _parts(name: str) -> list[str]:
    return name.split("_")


def _session(parts: Sequence[str]) -> set[str]:
    return {part for part in parts if part.startswith("ses-")}


def _expected(source: Source) -> str:
    kept = [part for part in _parts(source.stem) if "-" in part] or [source.stem]
    return f"{'_'.join(kept)}_label-lesion_mask.nii.gz"
