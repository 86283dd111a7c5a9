"""BIDS: sub-*/[ses-*/]anat/*_<suffix>.nii[.gz], the mask beside the image or in any derivative; and ATLAS R2.0."""

import csv
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from pipeline.cohorts.case import SPLITS, Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import by_session, folders, plain_else_all, read_utf8, with_entity, with_suffix
from pipeline.errors import UsageError
from pipeline.scans.nifti import stem

LESION = re.compile(r"(?:label|desc)-\w*(?:lesion|wmh)\w*", re.IGNORECASE)
NO_VALUE = {"", "n/a"}


@register("bids", "sub-01/anat/sub-01_FLAIR.nii.gz and derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
def bids(cohort: Path, modality: str | None) -> list[Entry]:
    """Each session of each subject."""
    return _entries(cohort, modality or "FLAIR", _participants(cohort))


@register(
    "atlas",
    "R001/sub-r001s001/ses-1/anat/sub-r001s001_ses-1_space-MNI152NLin2009aSym_T1w.nii.gz with its "
    "label-L_desc-T1lesion_mask beside it",
)
def atlas(cohort: Path, modality: str | None) -> list[Entry]:
    """Each session of each subject of each research group R001, R002 and so on."""
    groups = [folder for folder in folders(cohort, depth=3) if re.fullmatch(r"R\d{3}", folder.name)]
    return [entry for group in groups for entry in _entries(group, modality or "T1w", {})]


def _entries(root: Path, suffix: str, participants: Mapping[str, Mapping[str, str]]) -> list[Entry]:
    anatomical, lesions = by_session(root, ("anat",)), lesion_masks(root)
    truths, ignores = (by_session(root / "derivatives" / name, ("anat",)) for name in ("truth", "ignore"))

    entries = []
    for name in sorted(anatomical.keys() | {name for name, paths in lesions.items() if paths}):
        present = [path for path in anatomical.get(name, []) if not _is_mask(path)]
        images = plain_else_all(with_suffix(present, suffix), {f"{name}_{suffix}"})
        base = stem(images[0]).rpartition("_")[0] if images else name
        folder = name.replace("_", "/")
        row = participants.get(name.partition("_")[0], {})
        split = row.get("split", "").strip()
        unread = split.casefold() not in SPLITS.keys() | NO_VALUE
        entries.append(
            Entry(
                name=name,
                place=root / folder,
                images=images,
                masks=plain_else_all(
                    lesions.get(name, []),
                    *({f"{of}_label-lesion_mask", f"{of}_desc-lesion_mask"} for of in (base, name)),
                ),
                image_hint=f"anat/{name}_{suffix}.nii.gz",
                mask_hint=f"derivatives/<pipeline>/{folder}/anat/{name}_label-lesion_mask.nii.gz",
                truths=plain_else_all(
                    with_entity(with_suffix(truths.get(name, []), suffix), "desc-healthy"),
                    *({f"{of}_desc-healthy_{suffix}"} for of in (base, name)),
                ),
                ignores=with_entity(ignores.get(name, []), "label-ignore"),
                present=present,
                split=SPLITS.get(split.casefold()),
                session=name.partition("_ses-")[2] or None,
                columns=row,
                notes=(f"participants.tsv: its split {split!r} is none of {', '.join(SPLITS)} and was not used",)
                * unread,
            )
        )
    return entries


def lesion_masks(root: Path) -> dict[str, list[Path]]:
    """The lesion masks of each session of a dataset, beside the scans or in any derivative, by `sub-01[_ses-1]`."""
    lesions: dict[str, list[Path]] = defaultdict(list)
    derived = [by_session(folder, ("anat", "")) for folder in (root / "derivatives", *folders(root / "derivatives"))]
    for sessions in (by_session(root, ("anat",)), *derived):
        for name, paths in sessions.items():
            lesions[name] += [path for path in paths if _is_mask(path) and is_lesion(path)]
    return lesions


def _is_mask(path: Path) -> bool:
    return bool(with_suffix([path], "mask") or with_suffix([path], "roi"))


def is_lesion(path: Path) -> bool:
    """Whether a file's name says that it is of a lesion, as BIDS has it."""
    return any(LESION.fullmatch(entity) for entity in stem(path).split("_"))


def _participants(cohort: Path) -> dict[str, dict[str, str]]:
    """Rows of `participants.tsv` by participant, if there is one."""
    path = cohort / "participants.tsv"
    if not path.is_file():
        return {}
    rows = csv.DictReader(read_utf8(path).splitlines(), delimiter="\t")
    try:
        rows.fieldnames = [name.strip() for name in rows.fieldnames or []]
        return {
            row["participant_id"].strip(): {key: value or "" for key, value in row.items() if key is not None}
            for row in rows
            if row.get("participant_id")
        }
    except csv.Error as error:
        raise UsageError(f"{path}: is malformed ({error}), expected columns separated by tabs; mend it") from error
