"""BIDS: sub-*/[ses-*/]anat/*_<suffix>.nii[.gz], masks among the derivatives."""

from collections import defaultdict
from pathlib import Path

from pipeline.cohorts.case import Entry
from pipeline.cohorts.layout import register
from pipeline.cohorts.tree import by_session, folders, plain_else_all, with_entity, with_suffix
from pipeline.scans.nifti import stem


@register("bids", "sub-01/anat/sub-01_FLAIR.nii.gz and derivatives/manual/sub-01/anat/sub-01_label-lesion_mask.nii.gz")
def bids(cohort: Path, modality: str | None) -> list[Entry]:
    """Each session of each subject; the mask lies in `anat` of a derivative."""
    suffix = modality or "FLAIR"
    anatomical = by_session(cohort, ("anat",))
    lesions: dict[str, list[Path]] = defaultdict(list)
    for pipeline in folders(cohort / "derivatives"):
        for name, paths in by_session(pipeline, ("anat",)).items():
            lesions[name] += with_entity(with_suffix(paths, "mask"), "label-lesion", "desc-lesion")
    truths = by_session(cohort / "derivatives" / "truth", ("anat",))

    entries = []
    for name in sorted(anatomical.keys() | {name for name, paths in lesions.items() if paths}):
        present = anatomical.get(name, [])
        images = plain_else_all(with_suffix(present, suffix), {f"{name}_{suffix}"})
        base = stem(images[0]).rpartition("_")[0] if images else name
        folder = name.replace("_", "/")
        entries.append(
            Entry(
                name=name,
                place=cohort / folder,
                images=images,
                masks=plain_else_all(
                    lesions[name],
                    *({f"{of}_label-lesion_mask", f"{of}_desc-lesion_mask"} for of in (base, name)),
                ),
                image_hint=f"anat/{name}_{suffix}.nii.gz",
                mask_hint=f"derivatives/<pipeline>/{folder}/anat/{name}_label-lesion_mask.nii.gz",
                truths=plain_else_all(
                    with_entity(with_suffix(truths.get(name, []), suffix), "desc-healthy"),
                    *({f"{of}_desc-healthy_{suffix}"} for of in (base, name)),
                ),
                present=present,
            )
        )
    return entries
